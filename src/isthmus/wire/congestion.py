"""How fast the kernel sends to proxies: by which congestion control.

Proxies read what they are told when they come to it. A congestion control that estimates how fast a
way is, such as BBR, takes a slow reader for a slow way, and goes on to send slowly for seconds.

Source: docs/decisions/0073.
"""

import os
import socket
from pathlib import Path
from typing import Final

from isthmus.base import logs

_LOG = logs.Log("isthmus.tcp")
_SETTINGS: Final = Path("/proc/sys/net/ipv4")


def choose(door: socket.socket, name: str) -> None:
    """Send by the congestion control of this name on all connections that `door` accepts later.

    An empty name is the host's own, and so is one that the kernel does not have or does not let us
    have: that is logged.
    """
    if not name:
        return
    try:
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        _LOG.warning(
            "congestion control cannot be used; the host's own is used in its place",
            name=name,
            reason=os.strerror(error.errno or 0),
            known=_setting("tcp_available_congestion_control"),
            allowed=_setting("tcp_allowed_congestion_control"),
            hint="name one that is allowed, such as reno, or have the node load and allow this one",
        )


def _setting(name: str) -> str:
    try:
        return (_SETTINGS / name).read_text(encoding="ascii").strip()
    except OSError:
        # Not every network namespace shows it.
        return ""
