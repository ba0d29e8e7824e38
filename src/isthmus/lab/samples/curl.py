"""A small stand-in for `curl`, for machines that have none: HTTP/1.1 without TLS.

Knows `-s -S -i -v -o -w -m --connect-timeout -H -d -X --retry -k -f` and the `-w` variables
`http_code`, `time_total` and `size_download`. Exit codes are curl's: 6 name, 7 connection, 22 `-f`
and an error status, 28 time, 52 no answer.
"""

import argparse
import http.client
import pathlib
import socket
import sys
import time
from dataclasses import dataclass
from urllib import parse

_FAILED_STATUS = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    head: str
    body: bytes
    took_s: float


class CurlError(Exception):
    """A failure with curl's own exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"curl: ({code}) {message}")
        self.code = code


def main(argv: list[str] | None = None) -> int:
    """Send the requests and return curl's exit code."""
    options = _parser().parse_args(argv)
    code = 0
    for url in options.urls:
        try:
            answer = _request(url, options)
        except CurlError as error:
            if not options.silent or options.show_error:
                sys.stderr.write(f"{error}\n")
            _written(options.write_out, Answer(0, "", b"", 0.0))
            code = error.code
            continue
        code = _shown(answer, options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="curl", description="transfer a URL (HTTP only)")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-S", "--show-error", action="store_true")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-k", "--insecure", action="store_true")
    parser.add_argument("-f", "--fail", action="store_true")
    parser.add_argument("-L", "--location", action="store_true")
    parser.add_argument("-I", "--head", action="store_true")
    parser.add_argument("-o", "--output", default="")
    parser.add_argument("-w", "--write-out", default="")
    parser.add_argument("-m", "--max-time", type=float, default=None)
    parser.add_argument("--connect-timeout", type=float, default=None)
    parser.add_argument("--retry", type=int, default=0)
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data", default=None)
    parser.add_argument("-X", "--request", default="")
    parser.add_argument("urls", nargs="+")
    return parser


def _request(url: str, options: argparse.Namespace) -> Answer:
    parts = parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http":
        raise CurlError(1, f'Protocol "{parts.scheme}" not supported')
    began = time.monotonic()
    link = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=options.max_time or options.connect_timeout
    )
    try:
        _ask(link, parts, options)
        response = link.getresponse()
        body = response.read()
    except socket.gaierror as error:
        raise CurlError(6, f"Could not resolve host: {parts.hostname}") from error
    except TimeoutError as error:
        raise CurlError(28, "Operation timed out") from error
    except http.client.RemoteDisconnected as error:
        raise CurlError(52, "Empty reply from server") from error
    except ConnectionResetError as error:
        raise CurlError(56, "Recv failure: Connection reset by peer") from error
    except OSError as error:
        message = f"Failed to connect to {parts.hostname} port {parts.port or 80}: {error.strerror}"
        raise CurlError(7, message) from error
    finally:
        link.close()
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n"
    head += "".join(f"{name.lower()}: {value}\r\n" for name, value in response.getheaders())
    return Answer(response.status, head + "\r\n", body, time.monotonic() - began)


def _ask(
    link: http.client.HTTPConnection, parts: parse.SplitResult, options: argparse.Namespace
) -> None:
    headers = {"User-Agent": "curl/8.0.0", "Accept": "*/*"}
    if options.data is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    for line in options.header:
        name, _, value = line.partition(":")
        headers[name.strip()] = value.strip()
    method = options.request or ("HEAD" if options.head else "POST" if options.data else "GET")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    link.request(method, path, body=options.data, headers=headers)
    if options.verbose:
        sys.stderr.write(f"> {method} {path} HTTP/1.1\n")


def _shown(answer: Answer, options: argparse.Namespace) -> int:
    if options.verbose:
        sys.stderr.write("".join(f"< {line}\n" for line in answer.head.splitlines()))
    failed = options.fail and answer.status >= _FAILED_STATUS
    shown = answer.head.encode() if options.include or options.head else b""
    shown += b"" if failed else answer.body
    if options.output:
        pathlib.Path(options.output).write_bytes(shown)
    else:
        sys.stdout.buffer.write(shown)
        sys.stdout.flush()
    _written(options.write_out, answer)
    if failed:
        sys.stderr.write(f"curl: (22) The requested URL returned error: {answer.status}\n")
    return 22 if failed else 0


def _written(template: str, answer: Answer) -> None:
    text = template.replace("\\n", "\n").replace("%{http_code}", f"{answer.status:03d}")
    text = text.replace("%{time_total}", f"{answer.took_s:.6f}")
    text = text.replace("%{size_download}", str(len(answer.body)))
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
