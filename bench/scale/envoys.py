"""`python -m bench.scale.envoys SHAPE HOST:PORT COUNT FOLDER`: real Envoys among the proxies.

They come as the fleet's first proxies, with certificates of their own, and take deltas. What they
have is what their admin port says: neither our words nor our parser stand between. On standard
input they are told to wait until all have a certain set of endpoints.
"""

import asyncio
import contextlib
import datetime
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc

from bench.scale import clients, shapes, talks
from isthmus.base import clock
from isthmus.mesh.identities import SpiffeId, TrustDomain
from isthmus.node import bootstrap, envoy, pages, settings
from isthmus.testing import certificates
from isthmus.wire import sds, tls

POLL_S: Final = 0.05
PATIENCE_S: Final = 60.0
TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def document(
    shape: shapes.Shape, number: int, *, host: str, port: int, folder: Path
) -> dict[str, object]:
    """Return what an Envoy starts with."""
    one = shapes.proxy(shape, number)
    discovery = bootstrap.cluster(
        "xds-grpc",
        {"socket_address": {"address": host, "port_value": port}},
        http2=True,
    )
    discovery["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": TYPE, "common_tls_context": {"alpn_protocols": ["h2"]}},
    }
    secrets = bootstrap.cluster("sds-grpc", {"pipe": {"path": str(folder / "sds")}}, http2=True)
    service = {
        "envoy_grpc": {"cluster_name": "xds-grpc"},
        "initial_metadata": [
            {"key": "authorization", "value": f"Bearer {shape.token or one.token}"},
            {"key": "clusterid", "value": one.cluster},
        ],
    }
    wanted = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "node": {**talks.node(one, shape.network(one.cluster)), "cluster": one.account},
        "admin": {"address": {"pipe": {"path": str(folder / f"admin-{number}")}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [service],
            },
            "cds_config": wanted,
            "lds_config": wanted,
        },
        "static_resources": {"clusters": [discovery, secrets]},
        "bootstrap_extensions": [bootstrap.INTERNAL_LISTENERS],
    }


def shelf(shape: shapes.Shape) -> sds.Shelf:
    """Return the secrets that all of them are given: what they are, no peer asks here."""
    now = clock.SystemClock().now()
    one = shapes.proxy(shape, 0)
    made = tls.prove(
        certificates.signer(now=now),
        identity=SpiffeId(TrustDomain("cluster.local"), one.namespace, one.account),
        now=now,
        lifetime=datetime.timedelta(hours=1),
    )
    found = sds.Shelf()
    shown = sds.certificate(
        sds.CERTIFICATE, chain_pem=made.chain_pem, key_pem=made.key_pem, version="1"
    )
    believed = sds.roots(sds.ROOTS, roots_pem=made.roots_pem, version="1")
    found.add({sds.CERTIFICATE: shown, sds.ROOTS: believed})
    return found


@contextlib.asynccontextmanager
async def running(
    shape: shapes.Shape, folder: Path, *, host: str, port: int, count: int
) -> AsyncIterator[list[Path]]:
    """Run Envoys; yield the sockets of their admin ports."""
    server = grpc.aio.server(handlers=(sds.handler(shelf(shape)),))
    server.add_insecure_port(f"unix:{folder / 'sds'}")
    await server.start()
    habits = envoy.Habits(pages.Question("", 0, "/"), settings.Draining(), concurrency=1)
    started, admins = list[asyncio.subprocess.Process](), list[Path]()
    try:
        for number in range(count):
            written = document(shape, number, host=host, port=port, folder=folder)
            file = folder / f"envoy-{number}.json"
            file.write_text(json.dumps(written), encoding="utf-8")
            argv = [str(envoy.found()), *envoy.arguments(habits, bootstrap=file)]
            with (folder / f"envoy-{number}.log").open("w") as log:
                started.append(await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log))
            admins.append(folder / f"admin-{number}")
        yield admins
    finally:
        for process in started:
            process.kill()
            await process.wait()
        await server.stop(0)


async def held(admin: Path) -> str:
    """Return the digest of the endpoints that an Envoy has; empty while it does not answer."""
    try:
        connector = aiohttp.UnixConnector(str(admin))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://envoy/clusters") as answer,
        ):
            return digest(await answer.text())
    except (aiohttp.ClientError, OSError):
        return ""


def digest(text: str) -> str:
    """Return the digest of the endpoints in what the admin port says of clusters."""
    found = dict[str, list[str]]()
    for line in text.splitlines():
        name, _, rest = line.partition("::")
        if not name.endswith(shapes.DOMAIN):
            continue
        known = found.setdefault(name, [])
        place, kind, weight = [*rest.split("::"), "", ""][:3]
        if kind == "weight":
            known.append(f"{place.rpartition(':')[0]} {weight}")
    return clients.digest(f"{name}={','.join(sorted(some))}" for name, some in found.items())


async def until(admins: list[Path], wanted: list[str], timeout_s: float) -> dict[str, Any]:
    """Wait until each has the wanted set; return when each had it first."""
    ends, seen = time.monotonic() + timeout_s, dict[int, int]()
    while len(seen) < len(admins) and time.monotonic() < ends:
        for number, admin in enumerate(admins):
            if number not in seen and await held(admin) == wanted[number]:
                seen[number] = time.monotonic_ns()
        await asyncio.sleep(POLL_S)
    return {"seen_ns": sorted(seen.values())}


async def serve(shape: shapes.Shape, place: str, count: int, folder: Path) -> None:
    """Obey standard input until it ends."""
    host, _, port = place.rpartition(":")
    async with running(shape, folder, host=host, port=int(port), count=count) as admins:
        commands = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        while line := await commands.readline():
            asked = json.loads(line)
            found = await until(admins, asked["wanted"], asked["timeout_s"])
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(shapes.read(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
