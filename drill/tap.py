"""Listens to one wire of a lab and says whether anything on it was not TLS.

A program of its own, because it moves into a lab's networks: a task as JSON on the first line of
standard input, the answer as JSON on standard output once standard input ends.

    {"pid": OF-THE-LAB, "address": "10.10.1.6" | "", "interface": "eth0", "spared": ["10.9.9.9"]}

`address` says in whose network; none means the lab's own, between the clusters. Conversations with
an address that is spared are left out: a node asks its pods how they are.
"""

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench import usage

from drill import packets
from isthmus.base import namespaces

LONGEST_S: Final = 20.0
_EVERY_PROTOCOL: Final = 0x0003
_SOL_PACKET, _STATISTICS, _SO_RCVBUFFORCE = 263, 6, 33
_LARGEST_FRAME: Final = 1 << 18


def main() -> None:
    """Do one task."""
    task = json.loads(sys.stdin.readline())
    enter(int(task["pid"]), str(task["address"]))
    frames, dropped = captured(str(task["interface"]))
    print(json.dumps({**judged(frames, frozenset(task["spared"])), "dropped": dropped}))


def enter(pid: int, address: str) -> None:
    """Move into the network of a lab in which an address lives; the lab's own without one.

    Raises:
        LookupError: There is none.
    """
    pids = [each.pid for each in usage.below(pid)]
    with contextlib.suppress(FileNotFoundError):
        theirs = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        if not namespaces.same(theirs, os.open("/proc/self/ns/user", os.O_RDONLY)):
            namespaces.enter(theirs, flags=namespaces.NEWUSER)
    namespaces.enter(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), flags=namespaces.NEWNET)
    if address and not any(_lives_in(each, address) for each in _networks(pids)):
        raise LookupError(f"no network of the lab has the address {address}")


def _networks(pids: list[int]) -> Iterator[int]:
    """Yield a descriptor of each network that processes live in."""
    seen: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{pid}/ns/net")
            name = str(path.readlink())
            if name not in seen:
                seen.add(name)
                yield os.open(path, os.O_RDONLY)


def _lives_in(network: int, address: str) -> bool:
    """Move into a network; tell whether it has an address."""
    try:
        namespaces.enter(network, flags=namespaces.NEWNET)
    finally:
        os.close(network)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
        return True


def captured(interface: str) -> tuple[list[bytes], int]:
    """Return the frames until standard input ends, and how many did not come to us."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
            with contextlib.suppress(OSError):
                wire.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
        wire.bind((interface, _EVERY_PROTOCOL))
        print("listening", flush=True)
        frames = list(_heard(wire))
        _, dropped = struct.unpack("II", wire.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    return frames, int(dropped)


def _heard(wire: socket.socket) -> Iterator[bytes]:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        ready, _, _ = select.select([wire, sys.stdin], [], [], LONGEST_S)
        if sys.stdin in ready:
            return
        if wire in ready:
            try:
                yield wire.recv(_LARGEST_FRAME)
            except OSError as error:
                # Its pod has ended: there is nothing more to hear.
                if error.errno != errno.ENETDOWN:
                    raise
                return


def judged(frames: list[bytes], spared: frozenset[str]) -> dict[str, Any]:
    """Return what is told of frames: connections that spoke, their bytes, and what was no TLS."""
    spoken = [
        each
        for each in packets.streams_of(frames)
        if each.pieces and not {each.source[0], each.target[0]} & spared
    ]
    return {
        "connections": len({frozenset((each.source, each.target)) for each in spoken}),
        "size_bytes": sum(len(piece) for each in spoken for piece in each.pieces.values()),
        "faults": [fault for each in spoken if (fault := packets.fault_of(each))],
    }


if __name__ == "__main__":
    main()
