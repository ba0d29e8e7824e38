"""What stands in frames: told apart from what pads it, and headers decoded.

Source: RFC 9113 sections 6.1 to 6.3; RFC 7541.
"""

from typing import Final

import hpack

from isthmus.wire.h2 import frames
from isthmus.wire.h2.frames import Code

Decoder = hpack.Decoder
Headers = tuple[tuple[str, str], ...]

PRIORITY_BYTES: Final = 5


class Fault(Exception):  # noqa: N818  # how a connection ends, no fault of ours
    """A client breaks the protocol.

    Attributes:
        code: The kind of it, as the frame says that ends the connection.
        text: The same in words.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def decoder(header_bytes: int, *, table_bytes: int | None = None) -> Decoder:
    """Return what reads headers, and keeps as much of them as a client may refer to later.

    Args:
        header_bytes: Of one request at most.
        table_bytes: So much of them; None is what the library keeps.
    """
    made = hpack.Decoder(max_header_list_size=header_bytes)
    if table_bytes is not None:
        made.header_table_size = made.max_allowed_table_size = table_bytes
    return made


def decoded(content: bytes, by: Decoder) -> Headers:
    """Return the headers of a request.

    Raises:
        Fault: They are too many, or cannot be read.
    """
    try:
        found = by.decode(content, raw=False)
        return tuple((str(name), str(value)) for name, value in found)
    except hpack.OversizedHeaderListError:
        text = f"headers of a request are larger than {by.max_header_list_size} bytes"
        raise Fault(Code.ENHANCE_YOUR_CALM, text) from None
    except (hpack.HPACKError, UnicodeDecodeError):
        raise Fault(Code.COMPRESSION_ERROR, "headers that cannot be read") from None


def of_size(content: bytes, size: int) -> None:
    """Look whether a frame is of the only size that its kind has.

    Raises:
        Fault: It is not.
    """
    if len(content) != size:
        raise Fault(Code.FRAME_SIZE_ERROR, f"a frame of {len(content)} bytes that has {size}")


def unpadded(flags: int, content: bytes) -> bytes:
    """Return content without its padding.

    Raises:
        Fault: There is more padding than content.
    """
    if not flags & frames.PADDED:
        return content
    if not content or content[0] >= len(content):
        raise Fault(Code.PROTOCOL_ERROR, "more padding than content")
    return content[1 : len(content) - content[0]]


def without_priority(stream: int, content: bytes) -> bytes:
    """Return the headers behind what a client says of a stream's priority, which means nothing.

    Raises:
        Fault: The frame ends before, or makes the stream depend on itself.
    """
    if len(content) < PRIORITY_BYTES:
        raise Fault(Code.FRAME_SIZE_ERROR, "headers that end within their priority")
    if frames.number_in(content[:4]) == stream:
        raise Fault(Code.PROTOCOL_ERROR, "a stream that depends on itself")
    return content[PRIORITY_BYTES:]
