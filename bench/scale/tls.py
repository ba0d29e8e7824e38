"""TLS of thousands of connections in one thread, over sockets that do not block.

All share the same buffers. What is read from a socket goes to its connection's TLS at once and to
the last byte, which keeps what there is of a record that has only begun; what it has to say is taken
from it at once. So a turn of a connection is one call that reads, however much there is, and one that
writes.
"""

import socket
import ssl
from typing import Final, cast

READ: Final = 1 << 18
RECORD: Final = 1 << 14


class Buffers:
    """What all connections share.

    Attributes:
        plain: What was read last, decrypted, from its beginning on.
        coming: What is to be decrypted; empty but while somebody reads.
        going: What is to be written; empty but while somebody writes.
    """

    def __init__(self) -> None:
        self.plain = bytearray(READ + RECORD)
        self.view = memoryview(self.plain)
        self.read = memoryview(bytearray(READ))
        self.coming, self.going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])

    def secured(self) -> ssl.SSLObject:
        """Return the TLS of a new connection."""
        return self._tls.wrap_bio(self.coming, self.going)

    def heard(self, size: int) -> bytes:
        """Return what was read last."""
        return bytes(self.view[:size])

    def clear(self) -> None:
        """Leave nothing of a broken connection to the next one."""
        self.coming.read()
        self.going.read()


class Connection:
    """One connection; it is open from its making on, or will be.

    All that it does raises OSError when it has ended or is broken.

    Attributes:
        is_shaken: Whether content can be written and read.
        unsent: What the socket does not take yet.
        watched: The events of which its owner is told; they are not this one's matter.
    """

    __slots__ = ("_buffers", "_tls", "is_shaken", "socket", "unsent", "watched")

    def __init__(self, buffers: Buffers, place: tuple[str, int]) -> None:
        self._buffers = buffers
        self._tls: ssl.SSLObject | None = None
        self.is_shaken = False
        self.unsent = b""
        self.watched = 0
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.socket.connect_ex(place)

    @property
    def is_open(self) -> bool:
        """Whether the other side is there."""
        return self._tls is not None

    def begin(self) -> None:
        """Begin TLS once the socket can be written.

        Raises:
            OSError: Nobody listens.
        """
        if failed := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, "nobody listens")
        self._tls = self._buffers.secured()
        self._shake(self._tls)

    def read(self) -> int:
        """Read what there is; return how much content of it is in the buffers.

        Raises:
            OSError: The connection has ended, or is broken.
        """
        buffers, tls = self._buffers, self._tls
        assert tls is not None
        try:
            size = self.socket.recv_into(buffers.read)
        except BlockingIOError:
            return 0
        if not size:
            raise ConnectionResetError("the server has closed the connection")
        buffers.coming.write(buffers.read[:size])
        if not self.is_shaken:
            self._shake(tls)
        return self._decrypted(tls) if self.is_shaken else 0

    def _decrypted(self, tls: ssl.SSLObject) -> int:
        buffers, at = self._buffers, 0
        coming = buffers.coming
        try:
            while coming.pending:
                # Into a buffer it returns how much that is.
                at += cast("int", tls.read(READ, cast("bytearray", buffers.view[at:])))
        except ssl.SSLWantReadError:
            pass  # A record has begun, or was none of content.
        except OSError:
            buffers.clear()
            if not at:
                raise
        if buffers.going.pending:
            self.flush()
        return at

    def _shake(self, tls: ssl.SSLObject) -> None:
        """Go on with the handshake."""
        try:
            tls.do_handshake()
            self.is_shaken = True
        except ssl.SSLWantReadError:
            pass
        except OSError:
            self._buffers.clear()
            raise
        self.flush()

    def write(self, content: bytes) -> None:
        """Write content as far as the socket takes it now; the rest is `unsent`."""
        assert self._tls is not None
        at = self._tls.write(content)
        while at < len(content):
            at += self._tls.write(content[at : at + RECORD])
        self.flush()

    def flush(self) -> None:
        """Write what was left, and what TLS has to say."""
        out = self._buffers.going.read()
        if self.unsent:
            out = self.unsent + out
        try:
            sent = self.socket.send(out) if out else 0
        except BlockingIOError:
            sent = 0
        self.unsent = out[sent:]

    def close(self) -> None:
        """Close it without a word."""
        self.socket.close()
