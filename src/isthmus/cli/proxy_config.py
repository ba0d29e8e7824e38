"""`isthmus proxy-config`: what a proxy is configured with, in Istio's own tables.

`--from proxy` asks Envoy itself, `--from control-plane` what it should have, and `--diff` says
what is not the same.
"""

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import yaml
from typing_extensions import override

from isthmus.base import clock
from isthmus.cli import (
    asking,
    config_differences,
    config_dumps,
    config_rows,
    groups,
    options,
    proxies,
    render,
)
from isthmus.cli.config_dumps import Dump, Entry

PROXY, CONTROL_PLANE = "proxy", "control-plane"
STATUSES: Final = "/clusters?format=json"
NAMES: Final = {
    "cluster": ("clusters", "c", "cds"),
    "endpoint": ("endpoints", "ep", "eds"),
    "listener": ("listeners", "l", "lds"),
    "route": ("routes", "r", "rds"),
    "secret": ("secrets", "s", "sds"),
    "bootstrap": ("b",),
    "log": ("o",),
    "all": ("a",),
}
"""Each command with its other spellings."""

ALIASES: Final = {alias: name for name, aliases in NAMES.items() for alias in aliases}
KINDS: Final = {
    "cluster": config_dumps.CLUSTERS,
    "endpoint": config_dumps.ENDPOINTS,
    "listener": config_dumps.LISTENERS,
    "route": config_dumps.ROUTES,
    "secret": config_dumps.SECRETS,
}


class Spelled(groups.Group):
    """A group whose commands have other spellings, as Istio's has."""

    instead: Mapping[str, str] = groups.ISTIOCTL

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What was asked on the command line.

    Attributes:
        source: Whom to ask.
        file: A dump that is read instead; None asks.
    """

    pod: str
    place: proxies.Place
    source: str = PROXY
    output: str = ""
    file: Path | None = None
    differs: bool = False


@click.group(cls=Spelled)
def command() -> None:
    """Print what the proxy of a POD (`<pod>[.<namespace>]`, `deploy/<name>`) is configured with.

    With --diff: what differs from what the control plane wants; the exit status is then 1.

    Example: isthmus proxy-config endpoint deploy/sleep.sample --port 5000
    """


def asked(work: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options by which all of them ask; they arrive as one `question`."""

    @functools.wraps(work)
    def call(**given: Any) -> int:  # noqa: ANN401  # options of any kind
        place = proxies.Place(
            given.pop("kubeconfig"),
            given.pop("context"),
            given.pop("control_plane_context"),
            given.pop("istio_namespace"),
            given.pop("namespace"),
        )
        words = {name: given.pop(name) for name in ("pod", "source", "output", "file", "differs")}
        if not words["pod"] and not words["file"]:
            raise click.UsageError("name a POD, or a dump of one with --file")
        if words["file"] and (words["differs"] or words["source"] != PROXY):
            raise click.UsageError("--file is read instead of asking: no --diff, no --from")
        return work(Question(place=place, **words), **given)

    found: Callable[..., int] = options.cluster(options.namespace(call))
    for option in (
        click.option(
            "--control-plane-context",
            default=None,
            help="Context of the control plane, where it is not in the pod's cluster.",
        ),
        click.option(
            "--diff", "differs", is_flag=True, help="Print what differs; status 1 if any."
        ),
        click.option(
            "--file",
            "-f",
            default=None,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A dump in a file, instead of asking.",
        ),
        click.option(
            "--from",
            "source",
            default=PROXY,
            show_default=True,
            type=click.Choice([PROXY, CONTROL_PLANE]),
            help="Whom to ask.",
        ),
        click.option(
            "--output",
            "-o",
            default="short",
            type=click.Choice(["short", "json", "yaml"]),
            help="Form of the output.",
        ),
        click.argument("pod", required=False, default=""),
    ):
        found = option(found)
    return found


@command.command("cluster")
@click.option("--fqdn", default="", help="Only of this service.")
@click.option("--port", default="", help="Only of this port.")
@click.option("--subset", default="", help="Only of this subset.")
@click.option("--direction", default="", help="inbound or outbound.")
@asked
def cluster(question: Question, *, fqdn: str, port: str, subset: str, direction: str) -> int:
    """Clusters (other spellings: clusters, c).

    Example: isthmus proxy-config cluster deploy/sleep.sample --fqdn helloworld.sample
    """

    def is_wanted(entry: Entry) -> bool:
        name = config_rows.cluster_name(entry.name)
        return (
            _is_of(name.host, fqdn)
            and port in {"", name.port}
            and subset in {"", name.subset}
            and direction in {"", name.direction}
        )

    return _print(
        question,
        "cluster",
        is_wanted,
        lambda entries: [config_rows.cluster(one) for one in entries],
    )


@command.command("endpoint")
@click.option("--address", default="", help="Only of this address.")
@click.option("--port", default="", help="Only of this port of an address.")
@click.option("--cluster", "of", default="", help="Only of this cluster.")
@click.option("--status", default="", help="Only of this status, such as healthy.")
@asked
def endpoint(question: Question, *, address: str, port: str, of: str, status: str) -> int:
    """Endpoints (other spellings: endpoints, ep).

    Example: isthmus proxy-config endpoint deploy/sleep.sample --status healthy
    """

    def is_shown(row: Sequence[str]) -> bool:
        host, _, number = row[0].rpartition(":")
        return (
            address in {"", host}
            and port in {"", number}
            and of in {"", row[3]}
            and status.lower() in {"", row[1].lower()}
        )

    if question.differs or question.source != PROXY or question.file:
        return _print(
            question,
            "assignment",
            lambda entry: of in {"", entry.name},
            lambda entries: [
                row for one in entries for row in config_rows.assignment(one) if is_shown(row)
            ],
            kind="endpoint",
        )
    statuses = options.run(_own(question, STATUSES))
    if question.output != "short":
        narrowed = any((address, port, of, status))
        found = config_rows.narrowed(statuses, is_shown) if narrowed else statuses
        _write(question.output, found.get("cluster_statuses") or [])
        return 0
    rows = sorted(filter(is_shown, config_rows.endpoints(statuses)), key=lambda row: row[3])
    render.table(config_rows.HEADINGS["endpoint"], rows, gap=5)
    return 0


@command.command("listener")
@click.option("--address", default="", help="Only at this address.")
@click.option("--port", default="", help="Only at this port.")
@click.option("--type", "kind", default="", help="HTTP or TCP.")
@click.option(
    "--verbose",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=True,
    help="A line for each chain; =false: for each listener.",
)
@asked
def listener(question: Question, *, address: str, port: str, kind: str, verbose: bool) -> int:
    """Listeners (other spellings: listeners, l).

    Example: isthmus proxy-config listener deploy/sleep.sample --port 5000
    """

    def is_wanted(entry: Entry) -> bool:
        place, number, types = config_rows.listener_type(entry)
        return (
            address in {"", place}
            and port in {"", number}
            and kind.upper() in {"", *types.split("+")}
        )

    if not verbose:
        return _print(
            question,
            "listener type",
            is_wanted,
            lambda entries: [config_rows.listener_type(one) for one in entries],
            kind="listener",
        )
    return _print(
        question,
        "listener",
        is_wanted,
        lambda entries: [row for one in entries for row in config_rows.listener(one)],
    )


@command.command("route")
@click.option("--name", default="", help="Only the routes of this name.")
@asked
def route(question: Question, *, name: str) -> int:
    """Routes (other spellings: routes, r).

    Example: isthmus proxy-config route deploy/sleep.sample --name 5000
    """
    return _print(
        question,
        "route",
        lambda entry: name in {"", entry.name},
        lambda entries: [row for one in entries for row in config_rows.route(one)],
    )


@command.command("secret")
@asked
def secret(question: Question) -> int:
    """Certificates, never keys (other spellings: secrets, s).

    Example: isthmus proxy-config secret deploy/sleep.sample
    """
    now = clock.SystemClock().now()
    return _print(
        question,
        "secret",
        lambda _: True,
        lambda entries: [row for one in entries for row in config_rows.secrets(one, now=now)],
    )


@command.command("bootstrap")
@asked
def bootstrap(question: Question) -> int:
    """The configuration that the proxy started with, as JSON or YAML (other spelling: b).

    Example: isthmus proxy-config bootstrap deploy/sleep.sample -o yaml
    """
    dump = options.run(_dumps(dataclasses.replace(question, source=PROXY)))[0]
    _write(question.output, dump.bootstrap)
    return 0


@command.command("log")
@click.option("--level", default="", help="Such as warning, or http:debug,rbac:debug.")
@asked
def log(question: Question, *, level: str) -> int:
    """Levels of the proxy's loggers, after a change if there is --level (other spelling: o).

    Example: isthmus proxy-config log deploy/sleep.sample --level rbac:debug
    """

    async def ask() -> str:
        async with question.place.client() as client:
            found = await question.place.find(client, question.pod)
            text = ""
            for each in _levels(level) or [""]:
                text = await question.place.shown_by_proxy(
                    client, found, f"/logging{each}", method="POST"
                )
            return text

    click.echo(options.run(ask()), nl=False)
    return 0


@command.command("all")
@asked
def everything(question: Question) -> int:
    """Clusters, listeners, routes, endpoints and secrets (other spelling: a).

    Example: isthmus proxy-config all deploy/sleep.sample --diff
    """
    dumps = options.run(_dumps(question))
    if question.differs:
        return print_differences(*dumps, output=question.output)
    if question.output != "short":
        _write(question.output, {kind: _resources(dumps[0].of(KINDS[kind])) for kind in KINDS})
        return 0
    now = clock.SystemClock().now()
    rows = {
        "cluster": [config_rows.cluster(one) for one in dumps[0].of(config_dumps.CLUSTERS)],
        "listener": [
            row for one in dumps[0].of(config_dumps.LISTENERS) for row in config_rows.listener(one)
        ],
        "route": [
            row for one in dumps[0].of(config_dumps.ROUTES) for row in config_rows.route(one)
        ],
        "assignment": [
            row
            for one in dumps[0].of(config_dumps.ENDPOINTS)
            for row in config_rows.assignment(one)
        ],
        "secret": [
            row
            for one in dumps[0].of(config_dumps.SECRETS)
            for row in config_rows.secrets(one, now=now)
        ],
    }
    for index, (kind, found) in enumerate(rows.items()):
        if index:
            click.echo()
        render.table(config_rows.HEADINGS[kind], found, gap=5)
    return 0


# --- asking and printing --------------------------------------------------------------------------


def _print(
    question: Question,
    title: str,
    is_wanted: Callable[[Entry], bool],
    rows: Callable[[Iterable[Entry]], list[config_rows.Row]],
    *,
    kind: str = "",
) -> int:
    """Print one kind of resources, or what differs between both sides."""
    section = KINDS[kind or title]
    dumps = options.run(_dumps(question))
    if question.differs:
        return print_differences(*dumps, output=question.output, only=section)
    entries = [one for one in dumps[0].of(section) if is_wanted(one)]
    if question.output == "short":
        render.table(config_rows.HEADINGS[title], rows(entries), gap=5)
    else:
        _write(question.output, _resources(entries))
    for one in entries:
        if one.error:
            render.note(f"{one.name} was refused by the proxy: {one.error}")
    return 0


def print_differences(wanted: Dump, there: Dump, *, output: str, only: str = "") -> int:
    """Print what is not the same on both sides; return the exit status."""
    kinds = {kind: title for title, kind in config_differences.KINDS}
    found = config_differences.between(wanted, there)
    if only:
        found = [one for one in found if one.kind == kinds.get(only)]
    if output in {"json", "yaml"}:
        _write(output, [dataclasses.asdict(one) for one in found])
    else:
        for line in config_differences.summary(found, there, only=only):
            click.echo(line)
    return 1 if found else 0


def _resources(entries: Iterable[Entry]) -> list[Any]:
    return [one.resource for one in entries]


def _write(output: str, document: object) -> None:
    if output == "yaml":
        click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
    else:
        render.as_json(document)


async def _own(question: Question, path: str) -> Any:  # noqa: ANN401  # of JSON
    async with question.place.client() as client:
        found = await question.place.find(client, question.pod)
        text = await question.place.shown_by_proxy(client, found, path)
        return asking.parsed(text, pod=f"{found.namespace}/{found.name}")


async def _dumps(question: Question) -> tuple[Dump, ...]:
    """Return the dump that is asked for; to compare, the control plane's and the proxy's."""
    if question.file:
        content = await asyncio.to_thread(question.file.read_text, encoding="utf-8")
        found = proxies.Proxy(str(question.file), "", "")
        return (proxies.dump_of(asking.parsed(content, pod=found.name), found),)
    place = question.place
    if question.differs:
        return await place.both_sides(question.pod)
    async with place.client() as client:
        proxy = await place.find(client, question.pod)
        if question.source == CONTROL_PLANE:
            return (proxies.dump_of(await place.shown_by_home(proxy, "config_dump"), proxy),)
        text = await place.shown_by_proxy(client, proxy, proxies.DUMP)
        return (proxies.read(text, proxy),)


def _is_of(host: str, wanted: str) -> bool:
    return not wanted or host == wanted or host.startswith(f"{wanted}.")


def _levels(text: str) -> list[str]:
    """Return the queries that set levels: one for all loggers, or one for each that is named."""
    queries = []
    for part in filter(None, text.split(",")):
        name, has_name, level = part.partition(":")
        queries.append(f"?{name}={level}" if has_name else f"?level={name}")
    return queries
