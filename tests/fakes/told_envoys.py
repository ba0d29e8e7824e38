"""Real Envoys that a control plane on loopback tells; without listeners, whose ports are fixed."""

import asyncio
import contextlib
import json

from isthmus.ca import keys, pem
from isthmus.mesh.identities import ClusterId
from isthmus.testing import certificates, envoys, pace
from isthmus.wire import callers, sds

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
LIMIT_S = pace.patience(30.0)


class Judge(callers.Authenticator):
    """Takes everybody for the pod `caller`."""

    async def authenticate(self, credentials):
        return callers.Caller(ClusterId("east"), "default", "default", "caller", "u1")


def shelf():
    """Return what Envoy waits for before it uses a cluster with mutual TLS."""
    made = certificates.signer()
    own = {"chain_pem": "".join(map(pem.written, made.chain)), "version": "1"}
    key_pem = keys.private_pem(made.issuer.key)
    found = sds.Shelf()
    found.put(
        {
            "default": sds.certificate("default", key_pem=key_pem, **own),
            "ROOTCA": sds.roots("ROOTCA", roots_pem=made.roots_pem, version="1"),
        }
    )
    return found


def bootstrap(port, api_type="DELTA_GRPC"):
    """Return that of the pod `caller`, which asks for clusters."""
    node = {
        "id": "sidecar~10.0.0.1~caller.default~default.svc.cluster.local",
        "cluster": "caller.default",
        "metadata": {"CLUSTER_ID": "east"},
    }
    asked = {"cds_config": ADS}
    names = ("ads", "sds-grpc")
    return envoys.following(port, node=node, sources=asked, api_type=api_type, names=names)


@contextlib.asynccontextmanager
async def running(document, folder, name="envoy"):
    """Run an Envoy from when its admin pages are there; yield its process and their port."""
    path, address = folder / f"{name}.json", folder / f"{name}.address"
    path.write_text(json.dumps(document))
    with (folder / f"{name}.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            str(envoys.binary()),
            *("-c", str(path), "--admin-address-path", str(address)),
            *("--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"),
            stderr=log,
        )
    try:
        async with asyncio.timeout(LIMIT_S):
            port = await _port_in(address)
        yield process, port
    finally:
        process.kill()
        await process.wait()


async def _port_in(path):
    while True:
        if path.exists() and (text := path.read_text()):
            return int(text.rpartition(":")[2])
        await asyncio.sleep(0.02)
