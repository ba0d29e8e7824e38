"""A service that speaks gRPC and answers with the pod that it runs in, and its client.

    echo-grpc serve              answers on port 7070
    echo-grpc call HOST:PORT     sends calls over one connection; counts who answered

`/echo.Echo/Call` answers once with `{"pod": ..., "caller": ...}`, the caller as its proxy says;
`/echo.Echo/Stream` answers again and again for so many seconds as it is asked for. The client
prints `{"pods": {POD: CALLS}, "callers": [...], "seconds": S}` and fails with the first call.
"""

import argparse
import collections
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Final

import grpc

PORT: Final = 7070
CALL, STREAM = "/echo.Echo/Call", "/echo.Echo/Stream"
PAUSE_S: Final = 0.1
DEADLINE_S: Final = 20.0
MOST_AT_ONCE: Final = 64
POD: Final = os.environ.get("HOSTNAME", socket.gethostname())


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """Answers both calls, without protobuf: requests and answers are JSON."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return what answers a method; None for one that there is not."""
        match details.method:
            case "/echo.Echo/Call":
                return grpc.unary_unary_rpc_method_handler(answer)
            case "/echo.Echo/Stream":
                return grpc.unary_stream_rpc_method_handler(answers)
            case _:
                return None


def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Return who answers whom."""
    said = dict(context.invocation_metadata()).get("x-forwarded-client-cert", "")
    caller = str(said).rpartition("URI=")[2].partition(";")[0]
    return json.dumps({"pod": POD, "caller": caller}).encode()


def answers(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Yield answers for so many seconds as the request says."""
    end = time.monotonic() + float(request or b"1")
    while time.monotonic() < end:
        yield answer(request, context)
        time.sleep(PAUSE_S)


def serve() -> None:
    """Serve until the process is told to end."""
    server = grpc.server(futures.ThreadPoolExecutor(MOST_AT_ONCE))
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"0.0.0.0:{PORT}")
    server.start()
    server.wait_for_termination()


class Calls:
    """Calls over one connection to the proxy, from several threads."""

    def __init__(self, target: str, *, calls: int, lasting_s: float) -> None:
        self._channel = grpc.insecure_channel(target)
        self._left = iter(range(calls))
        self._lasting_s = lasting_s
        self._lock = threading.Lock()
        self.pods = collections.Counter[str]()
        self.callers = set[str]()

    def run(self) -> None:
        """Send calls while there are any left."""
        once = self._channel.unary_unary(CALL)
        stream = self._channel.unary_stream(STREAM)
        for _ in self._left:
            if self._lasting_s:
                wish = f"{self._lasting_s}".encode()
                said = list(stream(wish, timeout=self._lasting_s + DEADLINE_S))
            else:
                said = [once(b"", timeout=DEADLINE_S, wait_for_ready=True)]
            self._count({(one["pod"], one["caller"]) for one in map(json.loads, said)})

    def _count(self, found: set[tuple[str, str]]) -> None:
        with self._lock:
            for pod, caller in found:
                self.pods[pod] += 1
                self.callers.add(caller)


def call(target: str, *, calls: int, at_once: int, lasting_s: float) -> None:
    """Send calls, and print who answered."""
    sent = Calls(target, calls=calls, lasting_s=lasting_s)
    began = time.monotonic()
    with futures.ThreadPoolExecutor(at_once) as threads:
        for done in [threads.submit(sent.run) for _ in range(at_once)]:
            done.result()
    said = {
        "pods": dict(sorted(sent.pods.items())),
        "callers": sorted(sent.callers),
        "seconds": round(time.monotonic() - began, 3),
    }
    sys.stdout.write(f"{json.dumps(said)}\n")


def main(argv: list[str] | None = None) -> int:
    """Serve or call, and return the exit code."""
    parser = argparse.ArgumentParser(prog="echo-grpc", description="a gRPC service and its client")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve")
    client = commands.add_parser("call")
    client.add_argument("target")
    client.add_argument("--calls", type=int, default=1)
    client.add_argument("--at-once", type=int, default=1)
    client.add_argument("--lasting", type=float, default=0.0, help="seconds that each call takes")
    chosen = parser.parse_args(argv)
    if chosen.command == "serve":
        serve()
        return 0
    try:
        call(chosen.target, calls=chosen.calls, at_once=chosen.at_once, lasting_s=chosen.lasting)
    except grpc.RpcError as error:
        sys.stderr.write(f"echo-grpc: {error.code().name}: {error.details()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
