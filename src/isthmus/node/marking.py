"""Marks sockets as the proxy's own, so that packet rules let them pass."""

import socket

from isthmus.node import bootstrap


def is_permitted() -> bool:
    """Say whether this process may mark sockets; found out by trying."""
    with socket.socket() as tried:
        return mark(tried)


def mark(marked: socket.socket) -> bool:
    """Mark a socket if that is permitted; say whether it was."""
    try:
        marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, bootstrap.MARK)
    except PermissionError:
        return False
    return True
