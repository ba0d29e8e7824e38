"""An API server can be shut for a while, for everybody or at one of its doors."""

import asyncio
import contextlib
import socket

import aiohttp
import pytest
from aiohttp import web

from isthmus.lab.apiserver import doors as doors_
from isthmus.testing import pace

LIMIT_S = pace.patience(5.0)


@contextlib.asynccontextmanager
async def opened():
    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"hello")
        if request.path == "/watch":
            await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("inside", "outside")}
    for one in sockets.values():
        one.setblocking(False)
    doors = doors_.Doors(app, sockets)
    await doors.open()
    urls = {name: f"http://127.0.0.1:{one.getsockname()[1]}" for name, one in sockets.items()}
    async with aiohttp.ClientSession() as client:
        yield doors, urls, client
    await doors.close()
    for one in sockets.values():
        one.close()


async def asked(client, url):
    async with asyncio.timeout(LIMIT_S), client.get(url) as answer:
        return await answer.text()


async def test_who_comes_to_a_shut_door_is_reset_and_served_when_it_opens():
    async with opened() as (doors, urls, client):
        await doors.turn(doors_.Mode.REFUSES, ["inside"])
        with pytest.raises(aiohttp.ClientError):
            await asked(client, urls["inside"])
        assert await asked(client, urls["outside"]) == "hello"

        await doors.turn(doors_.Mode.SERVES, ["inside"])

        assert await asked(client, urls["inside"]) == "hello"


async def test_a_hanging_door_takes_connections_and_says_nothing():
    async with opened() as (doors, urls, client):
        await doors.turn(doors_.Mode.HANGS, ["inside"])
        host, port = urls["inside"].removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)

        await doors.turn(doors_.Mode.SERVES, ["inside"])
        assert await asked(client, urls["inside"]) == "hello"
        writer.close()


async def test_who_watches_is_cut_off_at_the_shut_door_only():
    async with (
        opened() as (doors, urls, client),
        client.get(urls["inside"] + "/watch") as cut,
        client.get(urls["outside"] + "/watch") as kept,
    ):
        assert await cut.content.readany() == await kept.content.readany() == b"hello"

        await doors.turn(doors_.Mode.REFUSES, ["inside"])

        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(LIMIT_S):
                await cut.content.readany()
        assert not kept.content.at_eof()
        assert kept.content.exception() is None
