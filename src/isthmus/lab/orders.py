"""Orders that a running cluster takes: over a socket in the lab's folder, one line of JSON each.

It decides how an order reaches the cluster's process; what it means is the matter of whoever
takes it. Only the lab's own user can enter its folder.

Error: `OrderRefused` (ISM-LAB-208).
"""

import contextlib
import json
import os
import pathlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus.base import errors

if TYPE_CHECKING:
    import asyncio

Obj = dict[str, Any]
Take = Callable[[Obj], Awaitable[Mapping[str, object]]]
"""Obeys an order and returns the answer; a `ValueError` refuses it."""

LIMIT_S = 60.0


class OrderRefused(errors.IsthmusError):
    """A cluster of a lab does not do what it is told."""

    code = "ISM-LAB-208"


async def serve(path: pathlib.Path, take: Take) -> "asyncio.Server":
    """Take orders until the server is closed."""
    import asyncio  # not for those who give orders

    async def answer(reader: "asyncio.StreamReader", writer: "asyncio.StreamWriter") -> None:
        try:
            line = await reader.readline()
            try:
                said: Mapping[str, object] = await take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                said = {"refused": str(error)}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        except OSError:
            return  # Whoever asked has gone.
        finally:
            writer.close()

    with _short(path) as name:
        return await asyncio.start_unix_server(answer, path=name)


def give(path: pathlib.Path, order: Mapping[str, object]) -> Obj:
    """Give a cluster an order and return its answer.

    Raises:
        OrderRefused: It does not understand, or does not answer (ISM-LAB-208).
    """
    try:
        with _short(path) as name, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(LIMIT_S)
            link.connect(name)
            link.sendall(json.dumps(order).encode() + b"\n")
            with link.makefile("rb") as answer:
                said = json.loads(answer.readline())
    except (OSError, ValueError) as error:
        raise OrderRefused(
            "the cluster's process takes no orders",
            detail=str(error),
            hint="`isthmus lab status` says whether the lab runs",
        ) from error
    if not isinstance(said, dict) or "refused" in said:
        raise OrderRefused("the cluster refused the order", detail=str(said))
    return said


@contextlib.contextmanager
def _short(path: pathlib.Path) -> Iterator[str]:
    """Name a socket through its folder's descriptor: the kernel takes 107 letters at most."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
