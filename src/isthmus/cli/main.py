"""The command line: which commands there are, and the one place where errors become text.

Commands are imported when they are called, so that `isthmus --help` and small commands start
fast.
"""

import importlib
import os
import sys
from collections.abc import Mapping

import click
from typing_extensions import override

from isthmus.base import boundary, imports
from isthmus.cli import groups, render

COMMANDS = {
    "bootstrap": "Print the configuration that a proxy runs with",
    "ca": "Make and install the certificates that clusters share",
    "create-remote-secret": "Print the secret that lets one cluster watch another",
    "demo": "Boot two clusters, join them, show traffic and identities",
    "explain": "Everything that decides one call: route, endpoints, policies, certificates",
    "findings": "What is wrong with single objects, and what to do",
    "gke": "Make clusters of Google Kubernetes Engine ready for one mesh",
    "gen-eastwest-gateway": "Print the options of an east-west gateway",
    "install": "Install or change Isthmus in a cluster",
    "lab": "Small Kubernetes clusters on this machine",
    "multicluster": "Let clusters reach each other through their gateways",
    "manifest": "Print what `install` would apply",
    "kubectl": "A small kubectl for machines that have none",
    "proxy-config": "What a proxy is configured with, and what it should be",
    "proxy-status": "What each proxy was sent and has accepted",
    "remote-clusters": "Which clusters the control plane watches, and how well",
    "rotate-remote-secret": "Replace a cluster's credential by a short-lived one",
    "uninstall": "Remove what `install` applied",
    "verify": "Send real requests between clusters and report what happened",
    "version": "Versions of this program, of control planes and of proxies",
    "waypoint": "Make, show and remove waypoints",
}
"""Every command with its one line of help; the module is `cli/<name with underscores>.py`."""

ALIASES = {"ps": "proxy-status", "pc": "proxy-config", "experimental": "x", "exp": "x"}

EXPERIMENTAL = (
    "create-remote-secret",
    "rotate-remote-secret",
)
"""Commands that Istio's users also reach as `x <command>`."""


INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

SHARED = ("context", "kubeconfig", "istio_namespace", "namespace")
"""Options that may also stand before the command, as Istio's own command line takes them."""


class Everywhere(dict[str, object]):
    """Defaults that hold for every command below, however deep."""

    @override
    def get(self, key: str, default: object = None) -> object:
        return super().get(key, default) if key in SHARED else self


class LazyGroup(groups.Group):
    """A group whose commands are imported when they are needed."""

    instead: Mapping[str, str] = groups.ISTIOCTL

    def __init__(self, names: tuple[str, ...], *, text: str) -> None:
        super().__init__(help=text, context_settings={"help_option_names": ["-h", "--help"]})
        self._names = names

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._names)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name == "x" and "x" in self._names:
            return LazyGroup(EXPERIMENTAL, text="Commands under their experimental spelling.")
        if name not in self._names:
            return None
        with imports.at_start():
            module = importlib.import_module(f"isthmus.cli.{name.replace('-', '_')}")
        found = module.command
        assert isinstance(found, click.Command)
        return found

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name]) for name in sorted(self._names) if name in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @override
    def invoke(self, ctx: click.Context) -> object:
        given = {key: value for key, value in ctx.params.items() if value is not None}
        ctx.default_map = Everywhere({**(ctx.default_map or {}), **given})
        return super().invoke(ctx)


command = LazyGroup(
    (*COMMANDS, "x"),
    text=("Isthmus joins many Kubernetes clusters into one service mesh.\n\nExample: isthmus demo"),
)
command.params += [
    click.Option(["--context"], help="Context in the kubeconfig."),
    click.Option(["--kubeconfig", "-c"], help="Kubeconfig file."),
    click.Option(["--istioNamespace", "-i", "istio_namespace"], help="Control plane's namespace."),
    click.Option(["--namespace", "-n"], help="Namespace."),
]


def main() -> None:
    """Run the command line; errors end with a code, a hint and exit status 1, never a traceback."""
    sys.exit(_status())


def _status() -> int:
    try:
        outcome = command.main(prog_name="isthmus", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        render.problem("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough; what is left in the buffer must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        click.echo(boundary.trace(error), err=True, nl=False)
        render.error(boundary.explained(error))
        return 1
    return outcome if isinstance(outcome, int) else 0
