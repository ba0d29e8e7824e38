"""How a connection to an API server is made safe, and how its loss is noticed.

It knows sockets and certificates, and nothing of what is said over them. Keys touch no disk where the
system has files in memory.
"""

import contextlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

from isthmus.kube import access


def context(reached_by: access.Access) -> ssl.SSLContext:
    """Return how the server is verified and what we show it."""
    made = ssl.create_default_context(cadata=reached_by.ca_pem or None)
    # Many clusters' authorities lack the key identifiers that strict checking demands.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not reached_by.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if reached_by.client_certificate_pem:
        both = f"{reached_by.client_certificate_pem}\n{reached_by.client_key_pem}\n"
        with _in_memory(both) as path:
            made.load_cert_chain(path)
    return made


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """Give `text` a path without putting it on a disk, where the system can."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("isthmus", os.MFD_CLOEXEC)
        try:
            os.write(number, text.encode())
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        yield file.name


def open_socket(
    address: tuple[int, int, int, str, tuple[Any, ...]],
) -> socket.socket:
    """Open a socket that notices within 30 s that the other side is gone."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return opened


def forbidden(host: str) -> str:
    """Return why a foreign kubeconfig may not lead to a resolved address, or nothing."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return access.forbidden_address(getattr(address, "ipv4_mapped", None) or address)
