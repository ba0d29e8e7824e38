import asyncio
import contextlib

import aiohttp
import pytest

from isthmus.node import pages
from isthmus.testing import pace


async def echo(request: pages.Request) -> pages.Answer:
    status = 404 if request.path == "/missing" else 200
    return pages.Answer(status, f"{request.method} {request.path} {request.is_local}".encode())


@pytest.fixture
async def port():
    server = await pages.serve(echo, host="127.0.0.1", port=0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_requests_are_answered_on_one_connection(port):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for path in ("/a", "/b"):
            async with session.get(f"http://127.0.0.1:{port}{path}?query=1") as answer:
                assert await answer.text() == f"GET {path} True"


async def test_we_can_ask_ourselves(port):
    found = await pages.ask(pages.Question("127.0.0.1", port, "/missing", method="POST"))

    assert (found.status, found.body) == (404, b"POST /missing True")


async def test_nobody_there_is_no_answer(port):
    with pytest.raises(pages.NoAnswer, match=r"127\.0\.0\.1:1"):
        await pages.ask(pages.Question("127.0.0.1", 1, "/"))


async def test_nobody_there_takes_no_connection():
    with pytest.raises(pages.NoAnswer):
        await pages.connect("127.0.0.1", port=1, source="127.0.0.6", deadline_s=1)


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 99999\r\n\r\n",
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 20000 + b"\r\n\r\n",
    ],
)
async def test_what_is_malformed_is_cut_off(port, text):
    assert await said(port, text) == b""


async def test_a_client_may_ask_to_close(port):
    answer = await said(port, b"HEAD /x HTTP/1.1\r\nconnection: close\r\n\r\n")

    assert answer.endswith(b"connection: close\r\n\r\n")


async def said(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    found = b""
    with contextlib.suppress(ConnectionError):
        found = await asyncio.wait_for(reader.read(), pace.patience(5))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return found


async def canned(answer: bytes) -> pages.Answer:
    async def speak(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await pages.ask(pages.Question("127.0.0.1", port, "/"))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"transfer-encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
        (b"content-length: 5\r\n\r\nhello", b"hello"),
        (b"\r\nuntil the end", b"until the end"),
    ],
)
async def test_bodies_of_every_form_are_read(answer, body):
    assert (await canned(b"HTTP/1.1 200 OK\r\n" + answer)).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",
        b"nonsense\r\n\r\n",
    ],
)
async def test_answers_that_are_none_are_refused(answer):
    with pytest.raises(pages.NoAnswer):
        await canned(answer)
