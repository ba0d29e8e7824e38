"""Fixtures for tests of agents and Envoys that are real."""

import pathlib
import tempfile

import aiohttp.web
import pytest
from node_world import ControlPlane


@pytest.fixture
async def control():
    async with ControlPlane().listening() as plane:
        yield plane


@pytest.fixture
def folder():
    # Short, because the paths of Unix sockets must be.
    with tempfile.TemporaryDirectory(prefix="node") as path:
        yield pathlib.Path(path)


@pytest.fixture
async def application():
    """An application that answers with the header that names its caller; gives its port."""

    async def hello(request):
        return aiohttp.web.Response(text=request.headers.get("x-forwarded-client-cert", ""))

    web = aiohttp.web.Application()
    web.router.add_get("/", hello)
    runner = aiohttp.web.AppRunner(web)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site._server.sockets[0].getsockname()[1]
    await runner.cleanup()
