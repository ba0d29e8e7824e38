"""Which texts may stand in a message of HTTP; what may not would make Envoy refuse all routes."""

import re
import string
from typing import Final

TOKEN: Final = frozenset(
    "!#$%&'*+-.^`|~_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
SERVER_NAME: Final = frozenset(string.ascii_letters + string.digits + "-_.*:")
LONGEST_SERVER_NAME: Final = 255
OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,240}[a-z0-9])?")
HOST: Final = frozenset({"host", ":authority"})
DELETE: Final = 0x7F
FIRST_PRINTABLE: Final = 0x20


def is_header(name: str) -> bool:
    """Say whether a text can be the name of a header, other than one that begins with a colon."""
    return bool(name) and TOKEN.issuperset(name)


def is_printable(value: str) -> bool:
    """Say whether a text can be the value of a header, or a part of an address."""
    return all(ord(char) >= FIRST_PRINTABLE and ord(char) != DELETE for char in value)


def is_object_name(value: str) -> bool:
    """Say whether an object of Kubernetes, such as a Secret, can be called so."""
    return OBJECT_NAME.fullmatch(value) is not None


def is_server_name(value: str) -> bool:
    """Say whether a client of TLS can ask for a name."""
    return len(value) <= LONGEST_SERVER_NAME and SERVER_NAME.issuperset(value)


def is_literal(value: str) -> bool:
    """Say whether Envoy takes a text as it is: after `%` it looks for a command of its own."""
    return is_printable(value) and "%" not in value
