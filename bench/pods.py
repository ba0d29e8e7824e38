"""The pods that measure and are measured: what they run, and how they are started and asked."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from bench import server
from isthmus.kube import apply, client, kinds, waiting

MESH: Final = "bench"
PLAIN: Final = "bench-plain"
"""Namespaces: with proxies beside every pod, and without."""

CALLER, NEAR, FAR = "caller", "near", "far"
_FOLDER: Final = "/bench"
_PROGRAMS: Final = ("load.py", "server.py")
_IMAGE: Final = "curlimages/curl:8.16.0"
_LIMIT_S: Final = 60.0
_POLL_S: Final = 0.1
_T = TypeVar("_T")


def namespace(name: str) -> client.Obj:
    """Return a namespace with the programs in it."""
    labels = {"istio-injection": "enabled"} if name == MESH else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def programs(namespace_: str) -> client.Obj:
    """Return the ConfigMap that brings the programs into pods."""
    here = Path(__file__).parent
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "programs", "namespace": namespace_},
        "data": {name: (here / name).read_text(encoding="utf-8") for name in _PROGRAMS},
    }


def service(name: str, namespace_: str) -> client.Obj:
    """Return the Service of a server."""
    ports = [{"name": "http", "port": server.PORT}, {"name": "tcp", "port": server.RAW_PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace_},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def deployment(name: str, namespace_: str, *, argv: Sequence[str], node: str) -> client.Obj:
    """Return a Deployment of one pod on a node; Python runs `argv[0]` of the programs."""
    command = ["python", f"{_FOLDER}/{argv[0]}", *argv[1:]] if argv[0] in _PROGRAMS else [*argv]
    container: dict[str, Any] = {
        "name": "main",
        "image": _IMAGE,
        "command": command,
        "volumeMounts": [{"name": "programs", "mountPath": _FOLDER}],
    }
    if argv[0] == "server.py":
        container["readinessProbe"] = {
            "httpGet": {"path": "/", "port": server.PORT},
            "periodSeconds": 1,
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace_},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "containers": [container],
                    "volumes": [{"name": "programs", "configMap": {"name": "programs"}}],
                },
            },
        },
    }


async def deploy(one: client.Client, two: client.Client) -> None:
    """Start all pods: callers in cluster1, servers in both, on other nodes than the callers."""
    idle = ("sleep", "infinity")
    serve = ("server.py",)
    first: list[client.Obj] = []
    for name in (PLAIN, MESH):
        first += [namespace(name), programs(name), service(NEAR, name)]
        first += [
            deployment(CALLER, name, argv=idle, node="cluster1-node1"),
            deployment(NEAR, name, argv=serve, node="cluster1-node2"),
        ]
    second = [namespace(MESH), programs(MESH), service(FAR, MESH)]
    second.append(deployment(FAR, MESH, argv=serve, node="cluster2-node2"))
    # Names are looked up in the caller's own cluster, so that it must know the service, too.
    await apply.apply(one, [*first, service(FAR, MESH)])
    await apply.apply(two, second)
    for where, name in ((one, PLAIN), (one, MESH), (two, MESH)):
        await ready(where, name)


async def deploy_ambient(one: client.Client, two: client.Client) -> None:
    """Start pods without sidecars: a caller and a server in cluster1, a shared one in cluster2."""
    home = namespace(MESH)
    home["metadata"]["labels"] = {"istio.io/dataplane-mode": "ambient"}
    first = [home, programs(MESH), service(NEAR, MESH)]
    first.append(deployment(CALLER, MESH, argv=("sleep", "infinity"), node="cluster1-node1"))
    first.append(deployment(NEAR, MESH, argv=("server.py",), node="cluster1-node2"))
    shared = service(FAR, MESH)
    shared["metadata"]["labels"] = {"solo.io/service-scope": "global"}
    second = [home, programs(MESH), shared]
    second.append(deployment(FAR, MESH, argv=("server.py",), node="cluster2-node1"))
    await apply.apply(one, first)
    await apply.apply(two, second)
    for where in (one, two):
        await ready(where, MESH)


async def ready(where: client.Client, namespace_: str) -> None:
    """Wait until all Deployments of a namespace have their pods."""
    for each in await where.list_(kinds.DEPLOYMENT, namespace=namespace_):
        await waiting.until(
            where,
            kinds.DEPLOYMENT,
            each["metadata"]["name"],
            namespace=namespace_,
            missing=waiting.deployment,
            timeout_s=_LIMIT_S,
        )


async def running(where: client.Client, namespace_: str, app: str) -> list[client.Obj]:
    """Return the pods of an app that are not about to end."""
    found = await where.list_(kinds.POD, namespace=namespace_, labels=f"app={app}")
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


async def load(where: client.Client, namespace_: str, *argv: str) -> dict[str, Any]:
    """Run the load generator in the namespace's caller; return what it found.

    Raises:
        RuntimeError: It failed.
    """
    pod = (await running(where, namespace_, CALLER))[0]["metadata"]["name"]
    command = ["python", f"{_FOLDER}/load.py", *argv]
    ended = await where.exec(namespace_, pod, command, container="main", timeout_s=_LIMIT_S)
    if ended.code:
        raise RuntimeError(f"{' '.join(command)}: {ended.stderr.decode(errors='replace')}")
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


async def until(found: Callable[[], Awaitable[_T | None]]) -> _T:
    """Ask again and again until there is an answer."""
    async with asyncio.timeout(_LIMIT_S):
        while True:
            answer = await found()
            if answer:
                return answer
            await asyncio.sleep(_POLL_S)


async def answered(where: client.Client, namespace_: str, host: str) -> None:
    """Wait until a server answers every request of the namespace's caller."""
    argv = ("open", host, str(server.PORT), "--rate", "50", "--seconds", "0.2")

    async def every_one() -> bool:
        try:
            return not (await load(where, namespace_, *argv))["failed"]
        except RuntimeError:
            return False

    await until(every_one)
