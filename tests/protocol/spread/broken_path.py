"""A program: a client's Envoy and a server in a network of their own, whose path then breaks.

    python broken_path.py ENVOY BOOTSTRAP SOCKET ADDRESS PORT

Envoy listens on a Unix socket, so that only its way to the server is broken: packets are dropped
without a word. Prints, as JSON, the status of a request before and of one after, and how many
seconds the latter took. No answer is status 0.
"""

import contextlib
import fcntl
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from http import server

from isthmus.base import namespaces
from isthmus.testing import pace

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
PATIENCE_S = pace.patience(15.0)


class Greeting(server.BaseHTTPRequestHandler):
    """Answers on kept connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


class Knock(http.client.HTTPConnection):
    """A connection through a Unix socket."""

    def __init__(self, path):
        super().__init__("proxy")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


def loopback(*, up):
    """Let packets pass, or none any more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        wanted = struct.pack("16sH14x", b"lo", 0)
        name, flags = struct.unpack("16sH14x", fcntl.ioctl(asked, SIOCGIFFLAGS, wanted))
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sH14x", name, flags))


def asked(path):
    """Send a request; return the status of its answer."""
    with contextlib.closing(Knock(path)) as knock, contextlib.suppress(OSError):
        knock.request("GET", "/")
        return knock.getresponse().status
    return 0


def main(envoy, bootstrap, path, address, port):
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    loopback(up=True)
    listener = server.ThreadingHTTPServer((address, int(port)), Greeting)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    command = [envoy, "-c", bootstrap, "--disable-hot-restart", "--concurrency", "1"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **silent) as process:
        deadline = time.monotonic() + PATIENCE_S
        while (before := asked(path)) != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        loopback(up=False)
        began = time.monotonic()
        after = asked(path)
        sys.stdout.write(json.dumps([before, after, time.monotonic() - began]))
        process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
