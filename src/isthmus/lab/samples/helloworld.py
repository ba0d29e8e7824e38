"""Istio's `helloworld` sample: answers with its version and the pod that it runs in.

`GET /hello` answers `Hello version: v1, instance: helloworld-v1-…`, `GET /health` answers 200. One
line per request goes to standard output, with the caller's identity if a proxy said it.
"""

import os
import socket
import sys
import time
from http import server

from typing_extensions import override

PORT = 5000


class Greeting(server.BaseHTTPRequestHandler):
    """Answers one connection, with keep-alive."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    version = os.environ.get("SERVICE_VERSION", "v1")
    instance = os.environ.get("HOSTNAME", socket.gethostname())

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer `/hello` and `/health`."""
        path = self.path.partition("?")[0]
        if path == "/hello":
            self._answer(200, f"Hello version: {self.version}, instance: {self.instance}\n")
        elif path == "/health":
            self._answer(200, "Helloworld is healthy\n")
        else:
            self._answer(404, "not found\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        identity = self.headers.get("x-forwarded-client-cert", "-")
        status = int(code) if isinstance(code, int) else code
        line = (
            f'{moment} {self.client_address[0]} "{self.requestline}" {status} xfcc="{identity}"\n'
        )
        sys.stdout.write(line)
        sys.stdout.flush()


class Listener(server.ThreadingHTTPServer):
    """Listens with room for bursts of connections."""

    request_queue_size = 512
    daemon_threads = True


def main() -> None:
    """Serve until the process is told to end."""
    with Listener(("0.0.0.0", PORT), Greeting) as listener:  # a pod's own network
        listener.serve_forever()


if __name__ == "__main__":
    main()
