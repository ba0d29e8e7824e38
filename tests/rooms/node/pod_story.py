"""A pod in a network of its own, with real packet rules, agent and Envoy; prints what happened.

It is a program because namespaces are for whole programs. It runs as an ordinary user: inside
there is one user only, so that the proxy can be told from its application by its mark alone.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request
from typing import Any

from isthmus.base import namespaces, netlink
from isthmus.testing import pace

OUTSIDE, POD = "10.9.0.1", "10.9.0.2"
INJECTED = ["-p", "15001", "-z", "15006", "-u", "1337", "-i", "*", "-b", "*", "-d"]
AGENTS_PORTS = "15090,15021,15020"
ASKING = str(pathlib.Path(__file__).with_name("asking.py"))
FAR = ("far.sample.svc.cluster.local", OUTSIDE)


def networks() -> int:
    """Enter a network and return another, joined to it by a cable."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=uid, gid=gid)
    (pod,) = namespaces.fresh(namespaces.NEWNET)
    netlink.send([netlink.up(netlink.index_of("lo"))])
    netlink.send([netlink.veth("cable", peer="eth0", peer_network=pod)])
    netlink.send([netlink.address(netlink.index_of("cable"), OUTSIDE, prefix=24)])
    with namespaces.entered(pod):
        link = netlink.index_of("eth0")
        netlink.send([netlink.up(netlink.index_of("lo")), netlink.up(link)])
        netlink.send([netlink.address(link, POD, prefix=24)])
    return pod


def started(pod: int, *argv: str, **more) -> subprocess.Popen:
    with namespaces.entered(pod):
        return subprocess.Popen([sys.executable, *argv], **more)


async def seen(url: str) -> bool:
    def get() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
        return False

    return await asyncio.to_thread(get)


async def until(url: str) -> None:
    async with asyncio.timeout(pace.patience(20)):
        while not await seen(url):  # noqa: ASYNC110  # another program starts
            await asyncio.sleep(0.05)


def in_pod(pod: int, url: str) -> str:
    """Get `url` as the application would; return the body."""
    script = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
    program = started(pod, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = program.communicate(timeout=pace.patience(10))
    return out or err.strip().splitlines()[-1]


def asking(pod: int, *words: str) -> str:
    """Ask a server for a name as the application would; return the addresses."""
    program = started(
        pod, ASKING, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = program.communicate(timeout=pace.patience(10))
    return out.strip() or err.strip().splitlines()[-1]


async def observed(pod: int, control: Any) -> dict:
    """Return what calls from the pod and to it lead to."""
    return {
        "outbound": await asyncio.to_thread(in_pod, pod, f"http://{OUTSIDE}:8080/token"),
        "inbound": await seen(f"http://{POD}:5000/token"),
        "itself": await asyncio.to_thread(in_pod, pod, f"http://{POD}:5000/token"),
        "known": await asyncio.to_thread(asking, pod, *FAR),
        "known by stream": await asyncio.to_thread(asking, pod, *FAR, "--stream"),
        "unknown": await asyncio.to_thread(asking, pod, "example.com", OUTSIDE),
        "by the agent": await asyncio.to_thread(asking, pod, *FAR, "--mark"),
        "accepted": [each.rpartition(".")[2] for each in control.accepted],
        "probe": await seen(f"http://{POD}:15020/app-health/app/readyz"),
        "counted": await asyncio.to_thread(
            in_pod, pod, "http://127.0.0.1:15000/stats?filter=tcp.*downstream_cx_total"
        ),
    }


async def story(pod: int, folder: pathlib.Path) -> dict:
    # Late: their libraries start threads, which must be born inside the namespaces.
    import dns_world
    import node_shapes
    from node_world import Agent, ControlPlane

    probers = {"/app-health/app/readyz": {"httpGet": {"path": "/", "port": 5000}}}
    control = ControlPlane()
    control.host = OUTSIDE
    known = {"ips": ["240.240.0.9"], "registry": "Kubernetes"}
    control.configurations = {
        "app": {
            **node_shapes.captured(),
            "names": [{"table": {"far.sample.svc.cluster.local": known}}],
        }
    }
    elsewhere = dns_world.served(dns_world.answers(dns_world.Elsewhere()), host=OUTSIDE, port=53)
    (folder / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
    async with control.listening(), elsewhere:
        environment = Agent(
            "app",
            control=control,
            folder=folder,
            ISTIO_KUBE_APP_PROBERS=json.dumps(probers),
            INSTANCE_IP=POD,
            ISTIO_META_DNS_CAPTURE="true",
            ISTHMUS_RESOLV_CONF=str(folder / "resolv.conf"),
        ).environment
        environment["ENVOY_STATUS_PORT"], environment["ENVOY_PROMETHEUS_PORT"] = "15021", "15090"
        proxy = json.loads(environment["PROXY_CONFIG"])
        proxy |= {"proxyAdminPort": 15000, "statusPort": 15020}
        environment["PROXY_CONFIG"] = json.dumps(proxy)
        with contextlib.ExitStack() as stack:

            def run(network: int, *argv: str) -> None:
                program = started(network, *argv, env=environment, cwd=folder / "app")
                stack.callback(program.wait, 10)
                stack.callback(program.terminate)

            home = namespaces.current(namespaces.NEWNET)
            stack.callback(os.close, home)
            run(home, "-m", "http.server", "8080", "--bind", OUTSIDE)
            run(pod, "-m", "http.server", "5000")
            redirect = ("-m", "isthmus.node", "istio-iptables", *INJECTED, AGENTS_PORTS)
            started(pod, *redirect, env=environment).wait(10)
            run(pod, "-m", "isthmus.node", "proxy", "sidecar")
            await until(f"http://{POD}:15021/healthz/ready")
            await until(f"http://{OUTSIDE}:8080/token")
            return await observed(pod, control)


def main() -> None:
    try:
        pod = networks()
    except PermissionError:
        sys.stdout.write(json.dumps({"skip": "this machine forbids user namespaces"}))
        return
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        sys.stdout.write(json.dumps(asyncio.run(story(pod, pathlib.Path(folder)))))
    os.close(pod)


if __name__ == "__main__":
    main()
