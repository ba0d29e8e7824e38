"""A waypoint in a network namespace of its own: what the product tells it, and a real Envoy.

Its certificate comes from a file, in the place of the agent's secrets.
"""

import asyncio
import contextlib
import datetime
import json

import tunnel_world

from isthmus.ca import keys, pem, shapes, signing
from isthmus.fleet.sources import ObjectKey
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys
from isthmus.testing import certificates as material
from isthmus.testing import shapes as objects

NAME = "waypoint"
KINDS = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
LABELS = {
    "gateway.istio.io/managed": "istio.io-mesh-controller",
    "gateway.networking.k8s.io/gateway-name": NAME,
    "istio.io/waypoint-for": "all",
}
ONLY_CLIENT = {
    "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
    "rules": [
        {
            "from": [{"source": {"principals": ["cluster.local/ns/default/sa/client"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/", "/open/*"]}}],
        }
    ],
}

NOBODY = {
    "targetRefs": [{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": NAME}],
    "action": "DENY",
    "rules": [
        {"to": [{"operation": {"paths": ["/denied"], "ports": [str(tunnel_world.HTTP)]}}]},
        {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/other"]}}]},
    ],
}


def told():
    """Return all that the waypoint of the world's service is told."""
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    for name in tunnel_world.SERVERS:
        shape = builders.Shape(proxy=None, account=name, is_captured=True)
        labels = {"istio.io/use-waypoint": NAME}
        cluster.pod(name, address=tunnel_world.address(name), labels=labels, shape=shape)
    meta = objects.metadata("web", "default", {"istio.io/use-waypoint": NAME})
    ports = {"http": tunnel_world.HTTP}
    service = objects.service_of(meta, ports=ports, vip=tunnel_world.VIP, shape=objects.USUAL)
    mesh.put(mesh.sources.services, ObjectKey(cluster.id, "default", "web"), service)
    ready = [tunnel_world.address(name) for name in tunnel_world.SERVERS]
    cluster.endpoints("web", ready=ready, ports=ports)
    pod = placed(mesh, cluster)
    mesh.authorization_policy("only-client", ONLY_CLIENT)
    mesh.authorization_policy("nobody", NOBODY)
    mesh.configure(accessLogFile="/dev/stdout")
    found = mesh.snapshot_of(pod)
    assert consistency.missing(found) == ()
    return [one for kind in KINDS for one in found.of(kind).values()]


def placed(mesh, cluster):
    """Add the waypoint to a cluster, and return its pod."""
    shape = builders.Shape(proxy=ProxyKind.WAYPOINT, account=NAME)
    pod = cluster.pod(NAME, address=tunnel_world.address(NAME), labels=LABELS, shape=shape)
    meta = objects.metadata(NAME, "default", LABELS)
    service = objects.service_of(meta, ports={"mesh": 15008}, vip="10.96.0.99", shape=objects.USUAL)
    mesh.put(mesh.sources.services, ObjectKey(cluster.id, "default", NAME), service)
    return pod


def certified(document, folder):
    """Return Envoy's configuration with a certificate in the place of the agent's secrets."""
    if isinstance(document, list):
        return [certified(one, folder) for one in document]
    if not isinstance(document, dict):
        return document
    fresh = {key: certified(value, folder) for key, value in document.items()}
    if fresh.pop("tls_certificate_sds_secret_configs", None):
        chain, key = str(folder / "chain.pem"), str(folder / "key.pem")
        fresh["tls_certificates"] = [
            {"certificate_chain": {"filename": chain}, "private_key": {"filename": key}}
        ]
        context = fresh.pop("combined_validation_context")["default_validation_context"]
        root = {"filename": str(folder / "root.pem")}
        fresh["validation_context"] = {**context, "trusted_ca": root}
    return fresh


def write_certificate(folder, identity):
    signer, key = material.signer(now=tunnel_world.NOW), material.key(folder.name)
    leaf = signing.workload(
        key.public_key(),
        identity=identity,
        signer=signer,
        stamp=shapes.Stamp(tunnel_world.NOW, 77),
        life=datetime.timedelta(hours=1),
    )
    *chain, root = signing.answer(leaf, signer=signer)
    (folder / "chain.pem").write_text("".join(chain))
    (folder / "key.pem").write_text(keys.private_pem(key))
    (folder / "root.pem").write_text(root)
    assert pem.written(leaf) in chain


@contextlib.asynccontextmanager
async def running(pod, folder, *, resources=None, identity=None):
    """Run the waypoint inside of a pod's network; yield the path of its access log.

    Another proxy than a waypoint runs with its own resources and identity.
    """
    folder = folder / pod.name
    folder.mkdir()
    write_certificate(folder, identity or tunnel_world.identity(NAME))
    bootstrap = envoys.bootstrap(told() if resources is None else resources)
    document = certified(json.loads(json.dumps(bootstrap)), folder)
    (folder / "envoy.json").write_text(json.dumps(document))
    command = [str(envoys.binary()), "-c", str(folder / "envoy.json"), "--disable-hot-restart"]
    command += ["-l", "error", "--concurrency", "1", "--file-flush-interval-msec", "20"]
    log = folder / "access.log"
    with log.open("w") as said, (folder / "envoy.log").open("w") as wrong:
        with pod.inside():
            process = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=wrong)
        try:
            assert await tunnel_world.until(lambda: pod.listens(15008)), (
                folder / "envoy.log"
            ).read_text()
            yield log
        finally:
            process.kill()
            await process.wait()


async def logged(log, *texts):
    """Return the first line of the waypoint's log with all of these."""

    def line():
        lines = log.read_text().splitlines()
        return next((one for one in lines if all(text in one for text in texts)), "")

    return await tunnel_world.until(line)
