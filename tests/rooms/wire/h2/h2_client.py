"""A client's side of HTTP/2 in a few lines, which can also break every rule."""

import hpack

from isthmus.wire.h2 import connection, frames

CALL = (
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/service/Method"),
    (":authority", "istiod"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class Client:
    """Talks to a `Connection` and takes apart what comes back."""

    def __init__(self, limits=None, *, settings=()):
        self.server = connection.Connection(limits)
        self.now = 0.0
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.events = self.say(frames.PREFACE + frames.settings(settings))

    def say(self, content):
        return self.server.receive(content, now=self.now)

    def open(self, stream, headers=CALL, *, flags=frames.END_HEADERS):
        return self.say(self.headers(stream, headers, flags=flags))

    def headers(self, stream, headers=CALL, *, flags=frames.END_HEADERS):
        return frame(frames.HEADERS, self._encoder.encode(headers), flags=flags, stream=stream)

    def remembers_nothing(self):
        """Refer from now on to nothing that was said in earlier requests."""
        self._encoder.header_table_size = 0

    def heard(self):
        """Return what the server has sent since: (kind, flags, stream, content)."""
        content = b"".join(self.server.outlet.ready())
        found, offset = [], 0
        while offset < len(content):
            size, kind, flags, stream = frames.head_at(content, offset)
            offset += frames.HEAD_BYTES
            found.append((kind, flags, stream, content[offset : offset + size]))
            offset += size
        assert offset == len(content)
        return found

    def decoded(self, block):
        return self._decoder.decode(block)


def frame(kind, content=b"", *, flags=0, stream=0):
    return frames.head(kind, size=len(content), flags=flags, stream=stream) + content


def data(stream, content, *, flags=0):
    return frame(frames.DATA, content, flags=flags, stream=stream)


def goaway(heard):
    """Return the code and the text with which the server has left."""
    content = next(content for kind, _, _, content in heard if kind == frames.GOAWAY)
    return frames.Code(int.from_bytes(content[4:8], "big")), content[8:].decode()
