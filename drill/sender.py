"""Runs inside a pod: sends requests at a constant rate and says what became of each.

The rate does not depend on the answers: a request that waits delays no other. Most requests use
connections again, one in five has a connection of its own. One line of JSON per request goes to
standard output. It ends when a file of the given name appears, or after a while; what was sent is
waited for.

    sender.py HOST PORT PATH FILE [REQUESTS-A-SECOND [AT-MOST-SECONDS [FIELD]]]

FIELD is a line for the head of every request, in which `{id}` stands for what tells it apart.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

RATE = 50.0
FRESH_EVERY = 5
PATIENCE_S = 15.0
LONGEST_S = 120.0


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BrokenError(Exception):
    """The answer was cut off, or was none."""


def say(thing: Mapping[str, object]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(thing) + "\n")
    sys.stdout.flush()


async def answer_on(reader: asyncio.StreamReader) -> tuple[int, str, bool]:
    """Read one answer; return its status, its body and whether the connection stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if "content-length" not in fields:
        raise BrokenError("answer of unknown length")
    body = await reader.readexactly(int(fields["content-length"]))
    return int(first.split()[1]), body.decode(), fields.get("connection") != "close"


class Sender:
    """Sends to one place."""

    def __init__(
        self, host: str, port: int, path: str, *, name: str, fields: Sequence[str] = ()
    ) -> None:
        self.host, self.port, self.path, self.name = host, port, path, name
        self.fields = "".join(f"{field}\r\n" for field in fields)
        self.idle: list[Connection] = []

    async def send(self, number: int) -> None:
        """Send one request, and write down what became of it."""
        at = time.time()
        fresh = number % FRESH_EVERY == 0
        status, body = 0, ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, body = await self.exchange(number, fresh=fresh)
        except (OSError, EOFError, BrokenError, TimeoutError) as error:
            body = repr(error)
        said = {"number": number, "at": at, "took_s": time.time() - at, "status": status}
        say({**said, "body": body, "fresh": fresh})

    async def exchange(self, number: int, *, fresh: bool) -> tuple[int, str]:
        """Ask once, on a connection that is open or on a new one."""
        reader, writer = await self.connection(fresh=fresh)
        keeps = False
        try:
            ending = "close" if fresh else "keep-alive"
            fields = self.fields.replace("{id}", f"{self.name}-{number}")
            writer.write(
                f"GET {self.path}?id={self.name}-{number} HTTP/1.1\r\n"
                f"host: {self.host}:{self.port}\r\nconnection: {ending}\r\n{fields}\r\n".encode()
            )
            status, body, keeps = await answer_on(reader)
        finally:
            if keeps and not fresh:
                self.idle.append((reader, writer))
            else:
                writer.close()
        return status, body

    async def connection(self, *, fresh: bool) -> Connection:
        """Take an idle connection that nobody has closed, or make one."""
        while self.idle and not fresh:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, self.port)


async def main(  # the program's arguments
    host: str,
    port: str,
    path: str,
    stop: str,
    rate: str = str(RATE),
    longest: str = str(LONGEST_S),
    *fields: str,
) -> None:
    """Send until the file `stop` exists."""
    loop = asyncio.get_running_loop()
    end = Path(stop)
    sender = Sender(host, int(port), path, name=end.name, fields=fields)
    began, number, sent = loop.time(), 0, set[asyncio.Task[None]]()
    while number < float(longest) * float(rate) and not end.exists():  # noqa: ASYNC240, RUF100  # quick
        task = loop.create_task(sender.send(number))
        sent.add(task)
        task.add_done_callback(sent.discard)
        number += 1
        await asyncio.sleep(max(0.0, began + number / float(rate) - loop.time()))
    if sent:
        await asyncio.wait(sent)
    say({"sent": number})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
