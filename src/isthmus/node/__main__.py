"""The program in proxies' containers: `istio-iptables`, `proxy`, `request`, `wait`, `ztunnel`; `cni`.

The names and arguments are those that Istio's injector writes into pods.
"""

import os
import sys
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from isthmus.base import boundary, imports, logs

Outcome = TypeVar("Outcome")
USAGE = """usage: python -m isthmus.node <command>

  proxy sidecar|router|waypoint    run a proxy and look after it
  istio-iptables [options]         redirect this pod's traffic to its proxy
  request GET|POST <path>          ask the proxy's admin page
  ztunnel                          run a node's proxy and look after it
  wait                             wait until the proxy is ready
  cni [options]                    let pods of this node take part in ambient mode
"""


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    command, *rest = argv or [""]
    commands = {
        "proxy": _proxy,
        "istio-iptables": _redirect,
        "request": _request,
        "wait": _wait,
        "ztunnel": _node_proxy,
        "cni": _cni,
    }
    if command not in commands:
        sys.stderr.write(USAGE)
        return 2
    try:
        return commands[command](rest)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sys.stderr.write(boundary.trace(error) + boundary.text(boundary.explained(error)))
        return 1


def _run(work: Coroutine[object, object, Outcome]) -> Outcome:
    import asyncio  # `istio-iptables` does without

    return asyncio.run(work)


def _proxy(argv: Sequence[str]) -> int:
    with imports.at_start():
        from isthmus.node import agent, folders, settings

    with folders.working() as folder:
        wanted = settings.read(argv, environment=os.environ, folder=folder)
        logs.configure(wanted.agent_log_level)
        _run(agent.run(wanted))
    return 0


def _node_proxy(_: Sequence[str]) -> int:
    with imports.at_start():
        from isthmus.node import folders, nodeagent, nodesettings

    with folders.working() as folder:
        wanted = nodesettings.read(os.environ, folder=folder)
        logs.configure(wanted.log_level)
        _run(nodeagent.run(wanted))
    return 0


def _redirect(argv: Sequence[str]) -> int:
    with imports.at_start():
        from isthmus.node import redirect

    logs.configure()
    redirect.run(argv, environment=os.environ)
    return 0


def _request(argv: Sequence[str]) -> int:
    with imports.at_start():
        from isthmus.node import pages, settings

    if len(argv) != 2:  # noqa: PLR2004, RUF100  # method and path
        sys.stderr.write(USAGE)
        return 2
    port = settings.ports(os.environ).admin
    answer = _run(
        pages.ask(
            pages.Question("127.0.0.1", port, "/" + argv[1].removeprefix("/"), method=argv[0])
        )
    )
    sys.stdout.buffer.write(answer.body)
    return 0 if answer.status == 200 else 1  # noqa: PLR2004, RUF100


def _cni(argv: Sequence[str]) -> int:
    with imports.at_start():
        from isthmus.node.cni import agent, settings

    wanted = settings.read(argv, environment=os.environ)
    logs.configure(wanted.log_level)
    _run(agent.run(wanted))
    return 0


def _wait(argv: Sequence[str]) -> int:
    with imports.at_start():
        import asyncio

        from isthmus.node import pages, settings

    port = settings.ports(os.environ).status

    async def until_ready() -> bool:
        for _ in range(120):
            try:
                answer = await pages.ask(pages.Question("127.0.0.1", port, "/healthz/ready"))
                if answer.status == 200:  # noqa: PLR2004, RUF100
                    return True
            except pages.NoAnswer:
                pass
            await asyncio.sleep(0.5)
        return False

    return 0 if _run(until_ready()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
