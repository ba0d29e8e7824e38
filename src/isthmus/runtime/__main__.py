"""The control plane's program: `discovery` runs it, `request` asks a running one, `reach` dials.

python -m isthmus.runtime discovery --domain cluster.local
python -m isthmus.runtime request GET /debug/syncz
python -m isthmus.runtime reach 203.0.113.2 15008

It also runs `annex` and `push`, which only a control plane starts: each with two sockets that it
has opened.
"""

import http
import os
import socket
import sys

from isthmus.base import boundary, imports, logs, memory
from isthmus.runtime import asking


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names; return its exit status."""
    match arguments:
        case ["discovery", *rest]:
            return _discovery(rest)
        case ["request", method, path]:
            return _request(method, path)
        case ["annex", talk, heard, level] if talk.isdecimal() and heard.isdecimal():
            return _annex(int(talk), int(heard), level)
        case ["push", talk, door, level] if talk.isdecimal() and door.isdecimal():
            return _push(int(talk), int(door), level)
        case ["reach", address, port] if port.isdecimal():
            return _reach(address, int(port))
        case _:
            sys.stderr.write("usage: discovery [FLAGS] | request GET PATH | reach ADDRESS PORT\n")
            return 2


def _discovery(arguments: list[str]) -> int:
    with imports.at_start():  # these load much; `request` must start fast
        import asyncio

        from isthmus.runtime import program, settings

    try:
        chosen = settings.read(os.environ, arguments)
        logs.configure(chosen.log_level)
        memory.collect_rarely()
        memory.read_less_at_once()
        asyncio.run(program.Program(chosen).run())
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sys.stderr.write(boundary.trace(error) + boundary.text(boundary.explained(error)))
        return 1
    return 0


def _annex(talk: int, heard: int, level: str) -> int:
    with imports.at_start():  # as above
        import asyncio

        from isthmus.base import clock
        from isthmus.runtime.annex import process

    logs.configure(level)
    sockets = (socket.socket(fileno=talk), socket.socket(fileno=heard))
    asyncio.run(process.run(*sockets, system_clock=clock.SystemClock()))
    return 0


def _push(talk: int, door: int, level: str) -> int:
    with imports.at_start():  # as above
        import asyncio

        from isthmus.base import clock
        from isthmus.runtime.fanout import process

    logs.configure(level)
    memory.collect_rarely()
    sockets = (socket.socket(fileno=talk), socket.socket(fileno=door))
    asyncio.run(process.run(*sockets, system_clock=clock.SystemClock()))
    return 0


def _reach(address: str, port: int) -> int:
    with imports.at_start():  # as above
        from isthmus.runtime import reaching

    sys.stdout.write(reaching.tried(address, port) + "\n")
    return 0


def _request(method: str, target: str) -> int:
    folder = os.environ.get("ISTHMUS_RUN_DIR", "/run/isthmus")
    path = "/" + target.removeprefix("/")  # `istioctl bug-report` asks without the slash
    try:
        status, body = asking.ask(f"{folder}/reports.sock", method=method, target=path)
    except OSError as error:
        sys.stderr.write(f"error: the control plane does not answer: {error.strerror}\n")
        return 1
    sys.stdout.write(body)
    return 0 if status < http.HTTPStatus.BAD_REQUEST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
