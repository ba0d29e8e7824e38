"""The lab's own API server within the test's process, over real TLS, with its controllers.

No machine is behind it: pods are objects only.
"""

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from isthmus.base import clock, tasks
from isthmus.kube import access
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import http, listening, pki, security, streams
from isthmus.lab.controllers import running

ADDRESS = "10.255.0.2"


class NoMachine:
    """Runs no pods."""

    async def exec(self, *args, **kwargs):
        raise LookupError("no machine")


@dataclass(frozen=True)
class LabServer:
    """One cluster; `kubeconfig` is its administrator's."""

    api: apis.Api
    authority: pki.Authority
    url: str
    kubeconfig: str

    def access(self) -> access.Access:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config"
            file.write_text(self.kubeconfig)
            return access.from_kubeconfig(str(file), context=None)


@contextlib.asynccontextmanager
async def serving(name: str, *, bookmark_s: float = 60.0) -> AsyncIterator[LabServer]:
    """Serve one cluster on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    api = apis.Api()
    authority = pki.make_cluster_authority(
        name, now=clock.SystemClock().now(), cluster_ip="10.96.0.1", addresses=[ADDRESS]
    )
    async with tasks.Nursery() as nursery:
        secure = security.ClusterSecurity(api, authority=authority, nursery=nursery)
        settings = running.Settings(
            authority=authority, signer=secure.signer, cluster_ip="10.96.0.1", address=ADDRESS
        )
        await running.prepare(api, settings)
        relay = streams.PodStreams(api, NoMachine())
        application = http.application(api, secure, relay, bookmark_s=bookmark_s)
        running.run_all(api, nursery, settings)
        runner = await listening.listen(
            application, [listener], context=pki.server_context(authority)
        )
        try:
            yield LabServer(api, authority, url, pki.kubeconfig(authority, name=name, server=url))
        finally:
            await runner.cleanup()
