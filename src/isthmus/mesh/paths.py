"""Paths of requests that all servers read alike.

`/admin` can be written in many ways: `/%61dmin`, `//admin`, `/x;/../admin`. Proxies and servers
do not agree on which of them are the same. A path is *plain* when there is only one way to read
it; whoever decides by a path must not trust any other.

Source: RFC 3986 sections 2 and 6.2; docs/reference/authorization.md.
"""

import re
from typing import Final

RAW: Final = "A-Za-z0-9._~!$&'()*+,:=@-"
"""What a segment may hold as it is."""

NEVER_RAW: Final = frozenset(' "<>[]^`{|}')
"""Characters that a URL cannot hold: encoding them is the only way to write them."""

EITHER_WAY: Final = frozenset("!$&'()*+,:=@")
"""Characters that are written as they are or encoded, with the same meaning."""

WELL_FORMED: Final = (
    "(?:[!-$&-~]|%[2-7][0-9A-F]|%(?:C[2-9A-F]|D[0-9A-F]|(?:E0%[AB]|ED%[89]|E[1-9A-CEF]%[89AB]"
    "|(?:F0%[9AB]|F[1-3]%[89AB]|F4%8)[0-9A-F]%[89AB])[0-9A-F])%[89AB][0-9A-F])*"
)
"""Encoded bytes beyond ASCII are UTF-8 in its one way of writing, in capital digits."""


def expressions(wanted: str = "") -> tuple[str, str]:
    """Return two expressions which both fit plain paths as a whole.

    Characters that may be written either way are plain in both, unless `wanted`, which the path
    will be compared with, holds them. The expressions are short, whatever is wanted: proxies
    refuse long ones.
    """
    encodable = NEVER_RAW | (EITHER_WAY - frozenset(wanted))
    by_digit = dict[str, str]()
    for code in sorted(f"{ord(one):02X}" for one in encodable):
        by_digit[code[0]] = by_digit.get(code[0], "") + code[1]
    encoded = "|".join(f"{first}[{second}]" for first, second in by_digit.items())
    segments = f"/?(?:(?:[{RAW}]|%(?:{encoded}|[89A-F][0-9A-F]))+/?)*"
    return segments, WELL_FORMED


def is_plain(text: str) -> bool:
    """Say whether a path, or its beginning or end, is plain with nothing encoded needlessly."""
    is_fitting = all(re.fullmatch(one, text) for one in expressions("".join(EITHER_WAY)))
    return is_fitting and not {".", ".."} & set(text.split("/")[1:])
