"""Two of Istio's own node proxies between a client and a server, each in a network of its own.

A program of its own: it moves into namespaces, in which it may be root and the ports that these
proxies insist on are free. It prints, as one JSON object, what became of a call at each step.

    python two_ztunnels.py <folder for logs> <path of ztunnel> <number of push workers>
"""

import asyncio
import contextlib
import datetime
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

from tests.fakes import assembled

from isthmus.base import clock, metrics, namespaces, netlink, tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.runtime import connections, impersonation
from isthmus.runtime.fanout import crowd, messages
from isthmus.testing import builders, certificates
from isthmus.testing.shapes import Shape
from isthmus.wire import ads, callers, csr, listening, notary, tls

NAME = "istiod.istio-system.svc"
CONTROL, VIP, SOCKS = "10.0.0.254", "10.96.0.1", 15080
PODS = {"client": "10.0.0.1", "server": "10.0.0.2"}
ACCOUNTS = [("default", pod) for pod in PODS]
TRY_S, CALL_S = 15.0, 5.0
TO_SERVER = {"selector": {"matchLabels": {"app": "server"}}}


class Judge(callers.Authenticator):
    """Takes the name of a pod as the token of its account."""

    async def authenticate(self, credentials):
        pod, cluster = credentials.token, ClusterId(credentials.claimed_cluster)
        return callers.Caller(cluster, "default", pod, pod=pod, pod_uid=pod)


class ControlPlane:
    """What istiod serves on 15012, for a mesh of one Service.

    `pods` are addresses by name; who runs as one of `accounts` may speak for its node's pods.
    """

    def __init__(self, pods=PODS, *, accounts=ACCOUNTS, server="server"):
        self.accounts = accounts
        self.builder = builder = builders.Mesh()
        self.east = builder.cluster("east", network="n1")
        self.mesh = assembled.mesh_of(builder)
        for name, address in pods.items():
            shape = Shape(proxy=None, account=name, node="node-1", is_captured=True)
            self.east.pod(name, address=address, shape=shape)
        self.ready(pods[server])

    def ready(self, *addresses, unready=()):
        self.east.service(
            "web", ready=addresses, unready=unready, shape=Shape(proxy=None, target_port=8080)
        )

    def policy(self, spec):
        self.builder.authorization_policy("some", {**TO_SERVER, **spec})

    def without_policy(self):
        key = ObjectKey(self.east.id, "default", "some")
        with self.builder.graph.transaction() as transaction:
            transaction.delete(self.builder.sources.authorization_policies, key)

    async def serve(self, *, workers=0, nursery=None):
        """Serve, by processes of their own if there are `workers`; return what to stop, and where."""
        now = clock.SystemClock().now()
        signer = certificates.signer(now=now - datetime.timedelta(minutes=5))
        proxies = connections.Connections(
            self.mesh, authenticator=Judge(), unready=lambda _: "", node_accounts=self.accounts
        )
        signing = csr.Signatory(
            Judge(),
            sign=notary.Notary(lambda: signer, clock.SystemClock()).asked,
            trust_domain=lambda _: TrustDomain("cluster.local"),
            own_domain=lambda: TrustDomain("cluster.local"),
            counters=csr.Counters(metrics.Metrics()),
            impersonation=impersonation.Judge(self.mesh, node_accounts=self.accounts).objection,
        )
        serving = tls.Serving(tls.issue(signer, names=(NAME,), now=now))
        if workers:
            return *await self._by(workers, nursery, proxies, signing, serving), roots_of(serving)
        server, port = listening.listen(
            (ads.Service(proxies).handler(), csr.service(signing)),
            address=f"{CONTROL}:0",
            serving=serving,
        )
        return server, port, roots_of(serving)

    async def _by(self, workers, nursery, proxies, signing, serving):
        async def certify(request, shown):
            return await csr.answered(request, shown=shown, signatory=signing)

        shown = serving.certificate
        state = messages.State(shown.chain_pem, shown.key_pem, "east", ads.Limits())
        served = crowd.Crowd(
            workers,
            proxies=proxies,
            certify=certify,
            asides=lambda: None,
            state=lambda: state,
            registered=metrics.Metrics(),
            log_level="warning",
        )
        door = listening.bound(CONTROL, 0)
        served.serve(door, nursery)
        served.look()
        await served.serving()
        return served, door.getsockname()[1]


def roots_of(serving):
    return serving.certificate.roots_pem


def alone():
    """Move into namespaces of our own; return descriptors of the pods' networks."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=uid, gid=gid)
    netlink.send([netlink.bridge("br0"), netlink.up(netlink.index_of("lo"))])
    bridge = netlink.index_of("br0")
    netlink.send([netlink.address(bridge, CONTROL, prefix=24)])
    networks = {}
    for name, address in PODS.items():
        (network,) = namespaces.fresh(namespaces.NEWNET)
        networks[name] = network
        pair = netlink.veth(f"v-{name}", peer="eth0", peer_network=network, bridge_index=bridge)
        netlink.send([pair])
        with namespaces.entered(network):
            link, loopback = netlink.index_of("eth0"), netlink.index_of("lo")
            ups = [netlink.up(link), netlink.up(loopback)]
            netlink.send([*ups, netlink.address(link, address, prefix=24)])
    return networks


def started(name, network, *, binary, folder, port):
    """Start the node proxy of one pod."""
    where = f"https://{CONTROL}:{port}"
    roots = str(folder / "roots.pem")
    environment = {
        "XDS_ADDRESS": where,
        "CA_ADDRESS": where,
        "XDS_ROOT_CA": roots,
        "CA_ROOT_CA": roots,
        "ALT_XDS_HOSTNAME": NAME,
        "ALT_CA_HOSTNAME": NAME,
        "AUTH_TOKEN": name,
        "CLUSTER_ID": "east",
        "NETWORK": "n1",
        "NODE_NAME": "node-1",
        "POD_NAME": name,
        "POD_NAMESPACE": "default",
        "SERVICE_ACCOUNT": name,
        "INSTANCE_IP": PODS[name],
        "PROXY_MODE": "dedicated",
        "PROXY_WORKLOAD_INFO": f"default/{name}/{name}",
        "IPV6_ENABLED": "false",
        "ENABLE_ORIG_SRC": "false",
        "ISTIO_META_DNS_CAPTURE": "false",
        "UNSTABLE_ENABLE_SOCKS5": "true",
    }
    with namespaces.entered(network), (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [binary],
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=namespaces.die_with_parent,
        )


class Answer(http.server.BaseHTTPRequestHandler):
    """The application behind the server's node proxy."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def answering(network):
    """Serve the application in the server's network."""
    with namespaces.entered(network):
        server = http.server.HTTPServer((PODS["server"], 8080), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def called(network):
    """Say whether a call from the client to the service is answered."""
    with namespaces.entered(network):
        connection = socket.socket()
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    wanted = b"\x05\x01\x00\x01" + socket.inet_aton(VIP) + (80).to_bytes(2, "big")
    with contextlib.closing(connection), contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CALL_S):
            await loop.sock_connect(connection, ("127.0.0.1", SOCKS))
            for said, length in ((b"\x05\x01\x00", 2), (wanted, 10)):
                await loop.sock_sendall(connection, said)
                await loop.sock_recv(connection, length)
            await loop.sock_sendall(connection, b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in await loop.sock_recv(connection, 4096)
    return False


def in_plain_text(network):
    """Say whether the server's node proxy takes a call without mutual TLS."""
    with namespaces.entered(network):
        connection = socket.socket()
    connection.settimeout(CALL_S)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.connect((PODS["server"], 15006))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(4096)
    return False


async def becomes(network, *, expected):
    """Say whether calls come to end as expected within some seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TRY_S):
            while await called(network) is not expected:  # noqa: ASYNC110  # what others do
                await asyncio.sleep(0.05)
            return True
    return False


def rule(**said):
    return {"action": "DENY", "rules": [said]}


def principal(name):
    return [{"source": {"principals": [f"cluster.local/ns/default/sa/{name}"]}}]


def steps(plane):
    """Return what is done, and whether calls are answered after it."""
    methods = [{"operation": {"methods": ["POST"]}}]
    ports = [{"operation": {"ports": ["8080"]}}]
    own = [{"source": {"namespaces": ["default"]}}]
    server = PODS["server"]
    return {
        "at first": (lambda: None, True),
        "its identity is denied": (
            lambda: plane.policy(rule(**{"from": principal("client")})),
            False,
        ),
        "another is denied": (lambda: plane.policy(rule(**{"from": principal("other")})), True),
        "other methods are denied": (lambda: plane.policy(rule(to=methods)), False),
        "its namespace is allowed": (
            lambda: plane.policy({"rules": [{"from": own, "to": ports}]}),
            True,
        ),
        "other methods are allowed": (lambda: plane.policy({"rules": [{"to": methods}]}), False),
        "nothing is said": (plane.without_policy, True),
        "plain text is refused": (
            lambda: plane.builder.peer_authentication("default", "STRICT"),
            True,
        ),
        "the server is not ready": (lambda: plane.ready(unready=[server]), False),
        "the server is ready": (lambda: plane.ready(server), True),
    }


async def tried(folder, binary, networks, workers):
    async with tasks.Nursery() as nursery:
        plane = ControlPlane()
        server, port, roots = await plane.serve(workers=workers, nursery=nursery)
        try:
            return await called_at_each_step(plane, folder, binary, networks, port, roots)
        finally:
            await server.stop(0)


async def called_at_each_step(plane, folder, binary, networks, port, roots):
    (folder / "roots.pem").write_text(roots)
    answering(networks["server"])
    running = [
        started(name, network, binary=binary, folder=folder, port=port)
        for name, network in networks.items()
    ]
    found = {}
    try:
        for what, (act, expected) in steps(plane).items():
            act()
            found[what] = await becomes(networks["client"], expected=expected)
        found["in plain text"] = await asyncio.to_thread(in_plain_text, networks["client"])
    finally:
        for one in running:
            one.terminate()
            one.wait()
    return found


if __name__ == "__main__":
    made = alone()
    told = asyncio.run(tried(pathlib.Path(sys.argv[1]), sys.argv[2], made, int(sys.argv[3])))
    sys.stdout.write(json.dumps(told))
