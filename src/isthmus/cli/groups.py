"""Groups of commands: how they list what they have, and what they say of what they have not.

Istio's users type the names that they know. Of each command of Istio's that this program lacks, it
is said here what does the same; it decides nothing about how commands work.
"""

import difflib
from collections.abc import Mapping
from typing import Final

import click
from typing_extensions import override

_ISTIOCTL: Final = "Istio's own `istioctl` does it; see docs/reference/istioctl.md"
_AMBIENT: Final = "see docs/explanation/known-limits.md on ambient mode"
ISTIOCTL: Final[Mapping[str, str]] = {
    "admin": "the control plane's log levels cannot be changed while it runs",
    "analyze": "`isthmus findings` says what is wrong with single objects",
    "authz": "`isthmus explain POD HOST:PORT` names the policies that decide a call",
    "bug-report": _ISTIOCTL,
    "check-inject": _ISTIOCTL,
    "dashboard": "there are no dashboards; metrics: docs/reference/metrics.md",
    "describe": "`isthmus explain POD HOST:PORT` tells what becomes of a call",
    "ecds": "no extension is configured by discovery",
    "envoy-stats": _ISTIOCTL,
    "injector": _ISTIOCTL,
    "internal-debug": "how to ask the debug pages: docs/reference/debug-endpoints.md",
    "kube-inject": "label the namespace `istio-injection=enabled`; pods then get their proxy",
    "metrics": "there is no Prometheus to ask; metrics: docs/reference/metrics.md",
    "operator": "`isthmus install -f FILE` takes IstioOperator files",
    "precheck": "`isthmus install --dry-run` shows what would change",
    "profile": "profiles: default, ambient, demo, minimal, remote, empty; `isthmus manifest generate`",
    "rootca-compare": "`isthmus proxy-config secret POD` shows the roots of each",
    "tag": "there are no revision tags; label namespaces `istio.io/rev=REVISION`",
    "upgrade": "install again: `isthmus install -f FILE`",
    "validate": "`isthmus findings` names each object that is not understood",
    "wait": "`isthmus proxy-status POD` ends with 0 when the proxy is in step",
    "workload": "virtual machines stand in a ServiceEntry: docs/reference/service-entry.md",
    "ztunnel-config": _AMBIENT,
}
"""Commands of Istio's that have another name or form here, and what to do instead."""


class Group(click.Group):
    """A group that lists each command with its whole sentence, and helps with typing mistakes.

    Attributes:
        instead: What to do in place of commands that somebody may expect here.
        otherwise: What to say where nothing similar is known.
    """

    instead: Mapping[str, str] = {}
    otherwise = ""

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, found.get_short_help_str(limit=200))
            for name in self.list_commands(ctx)
            if (found := self.get_command(ctx, name)) is not None and not found.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            advice = self._advice(ctx, error.command_name)
            told = f"No such command '{error.command_name}'. {advice}".rstrip()
            raise click.UsageError(told, ctx) from None

    def _advice(self, ctx: click.Context, name: str) -> str:
        if name in self.instead:
            return f"Instead: {self.instead[name]}."
        close = difflib.get_close_matches(name, self.list_commands(ctx))
        named = " or ".join(f"`{one}`" for one in close)
        return f"Did you mean {named}?" if close else self.otherwise
