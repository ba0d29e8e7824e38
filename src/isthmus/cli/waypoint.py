"""`isthmus waypoint`: makes, shows and removes waypoints, as `istioctl waypoint` does.

IsthmusError
└── WaypointsUnserved
"""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import click
import yaml
from typing_extensions import override

from isthmus.base import errors
from isthmus.cli import groups, options, render
from isthmus.install import exposing, waypoints
from isthmus.kube import apply as applying
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, problems, waiting

TIMEOUT: Final = "1m30s"
DEFAULT: Final = "default"
NONE_FOUND: Final = "No waypoints found."
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")

Command = TypeVar("Command", bound=Callable[..., object])
Outcome = TypeVar("Outcome")


class WaypointsUnserved(errors.IsthmusError):
    """No control plane of a cluster runs waypoints."""

    code = "ISM-CLI-048"


class Duration(click.ParamType[float]):
    """A length of time as Kubernetes writes it, in seconds."""

    name = "duration"

    @override
    def convert(self, value: object, param: object, ctx: object) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.findall(str(value))
        if not found or "".join(number + unit for number, unit in found) != value:
            self.fail(f"`{value}` is no duration; write it as `90s` or `1m30s`")
        return sum(float(number) * _UNITS[unit] for number, unit in found)


@click.group(cls=groups.Group)
def command() -> None:
    """Make, show and remove waypoints.

    Example: isthmus waypoint apply --namespace apps --enroll-namespace --wait
    """


def _name(command: Command) -> Command:
    return click.option(
        "--name", default=waypoints.NAME, show_default=True, help="Name of the waypoint."
    )(command)


def _wish(command: Command) -> Command:
    """Add what a waypoint may be asked to be."""
    for option in (
        click.option("--revision", "-r", default="", help="Revision to label the waypoint with."),
        click.option(
            "--for",
            "traffic",
            default="",
            type=click.Choice(("", *waypoints.TRAFFIC)),
            metavar="|".join(waypoints.TRAFFIC),
            help="Traffic that passes the waypoint.  [default: service]",
        ),
        _name,
    ):
        command = option(command)
    return command


def _wait(*, default: bool) -> Callable[[Command], Command]:
    """Add whether to wait, also spelled `--wait=false`, and for how long."""

    def added(command: Command) -> Command:
        timed = click.option(
            "--waypoint-timeout",
            "timeout_s",
            default=TIMEOUT,
            show_default=True,
            type=Duration(),
            help="How long to wait.",
        )(command)
        return click.option(
            "--wait",
            "-w",
            is_flag=False,
            flag_value=True,
            default=default,
            show_default=True,
            type=bool,
            help="Wait until it is ready.",
        )(timed)

    return added


def _everywhere(command: Command) -> Command:
    return click.option(
        "--all-namespaces", "-A", "everywhere", is_flag=True, help="Those of all namespaces."
    )(command)


@command.command()
@options.cluster
@options.namespace
@_wish
@_wait(default=False)
@click.option("--enroll-namespace", is_flag=True, help="Label the namespace to use it.")
@click.option("--overwrite", is_flag=True, help="Replace the waypoint that the namespace uses.")
def apply(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    name: str,
    traffic: str,
    revision: str,
    timeout_s: float,
    *,
    wait: bool,
    enroll_namespace: bool,
    overwrite: bool,
) -> None:
    """Make a waypoint, or change it.

    A namespace that uses another waypoint already is left as it is without --overwrite, and
    nothing is made. Exit status: 0; 1 something failed, or it was not ready in time.

    Example: isthmus waypoint apply --namespace apps --for all --wait
    """
    del istio_namespace
    _refuse(name)

    async def work(client: kube_client.Client) -> None:
        where = namespace or client.access.namespace or DEFAULT
        if enroll_namespace and not await _may_enrol(client, where, name, overwrite=overwrite):
            return
        wanted = waypoints.manifest(name=name, namespace=where, traffic=traffic, revision=revision)
        await _made(client, wanted)
        click.echo(f"✅ waypoint {where}/{name} applied")
        if wait:
            await _ready(client, wanted["metadata"], timeout_s)
            click.echo(f"✅ waypoint {where}/{name} is ready!")
        if enroll_namespace:
            labels = {"metadata": {"labels": {waypoints.USE_LABEL: name}}}
            await client.patch(kinds.NAMESPACE, where, labels)
            click.echo(f'✅ namespace {where} labeled with "{waypoints.USE_LABEL}: {name}"')

    _run(kubeconfig, context, work)


@command.command()
@options.cluster
@click.option("--namespace", "-n", default="", help="Namespace; else none is written down.")
@_wish
def generate(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    name: str,
    traffic: str,
    revision: str,
) -> None:
    """Print the Gateway that `apply` would make; no cluster is asked.

    Example: isthmus waypoint generate --namespace apps | kubectl apply -f -
    """
    del kubeconfig, context, istio_namespace
    _refuse(name)
    made = waypoints.manifest(name=name, namespace=namespace, traffic=traffic, revision=revision)
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


@command.command("list")
@options.cluster
@options.namespace
@_everywhere
@options.output("json")
def list_(
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    output: str,
    *,
    everywhere: bool,
) -> None:
    """List the waypoints of a namespace, or of all.

    Example: isthmus waypoint list -A -o json
    """
    del istio_namespace

    async def work(client: kube_client.Client) -> list[dict[str, Any]]:
        return await _found(client, namespace, everywhere=everywhere)

    found = [waypoints.described(one) for one in _run(kubeconfig, context, work)]
    if output == "json":
        render.as_json(found)
    elif not found:
        click.echo(NONE_FOUND)
    else:
        columns = ("NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED")
        rows = [
            (one["name"], one["revision"], one["trafficType"], str(one["programmed"]))
            for one in found
        ]
        _table(columns, rows, found, everywhere=everywhere)


@command.command()
@options.cluster
@options.namespace
@_everywhere
@_wait(default=True)
@options.output("json")
def status(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    timeout_s: float,
    output: str,
    *,
    everywhere: bool,
    wait: bool,
) -> None:
    """Show whether waypoints are up, and else why not.

    Exit status: 0; 1 something failed, or one was not ready in time.

    Example: isthmus waypoint status --namespace apps --wait=false
    """
    del istio_namespace

    async def work(client: kube_client.Client) -> list[dict[str, Any]]:
        found = await _found(client, namespace, everywhere=everywhere)
        if not wait:
            return found
        return [await _ready(client, one["metadata"], timeout_s) for one in found]

    found = [waypoints.described(one) for one in _run(kubeconfig, context, work)]
    if output == "json":
        render.as_json(found)
    elif not found:
        click.echo(NONE_FOUND)
    else:
        columns = ("NAME", "STATUS", "TYPE", "REASON", "MESSAGE")
        keys = ("status", "type", "reason", "message")
        rows = [(one["name"], *(one["condition"][key] for key in keys)) for one in found]
        _table(columns, rows, found, everywhere=everywhere)


@command.command()
@options.cluster
@options.namespace
@click.option("--all", "everything", is_flag=True, help="All waypoints of the namespace.")
@click.option("--revision", "-r", default="", help="Those labelled with this revision.")
@click.argument("names", nargs=-1)
def delete(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    revision: str,
    names: Sequence[str],
    *,
    everything: bool,
) -> None:
    """Remove waypoints by name, by revision or all of a namespace.

    Exit status: 0, also where one was not found; 1 something failed.

    Example: isthmus waypoint delete --namespace apps waypoint
    """
    del istio_namespace
    is_by_name = not (everything or revision)
    if not is_by_name and names:
        raise click.UsageError("names cannot stand beside --all or --revision")
    if is_by_name and not names:
        raise click.UsageError("name waypoints, or give --all or --revision")

    async def work(client: kube_client.Client) -> None:
        where = namespace or client.access.namespace or DEFAULT
        there = waypoints.only(await _gateways(client, where), revision=revision)
        by_name = {one["metadata"]["name"]: one for one in there}
        for name in names or sorted(by_name):
            ended = "not found"
            if name in by_name:
                [change] = await applying.delete(client, [by_name[name]])
                ended = "deleted" if change.action == "delete" else "not found"
            click.echo(f"waypoint {where}/{name} {ended}")

    _run(kubeconfig, context, work)


# --- with a cluster -------------------------------------------------------------------------------


def _run(
    kubeconfig: str | None,
    context: str | None,
    work: Callable[[kube_client.Client], Coroutine[object, object, Outcome]],
) -> Outcome:
    async def connected() -> Outcome:
        reached_by = options.accessed(kubeconfig, context=context)
        async with kube_client.Client(reached_by) as client:
            return await work(client)

    return options.run(connected())


def _refuse(name: str) -> None:
    if not name or name == waypoints.NO_NAME:
        raise click.BadParameter(f"no waypoint can be called `{name}`", param_hint="--name")


async def _may_enrol(
    client: kube_client.Client, namespace: str, name: str, *, overwrite: bool
) -> bool:
    """Say whether a namespace may be labelled to use a waypoint, and warn of what is odd."""
    found = await client.get(kinds.NAMESPACE, namespace)
    labels = found["metadata"].get("labels") or {}
    used = labels.get(waypoints.USE_LABEL, "")
    if used not in {"", name} and not overwrite:
        render.note(
            f"⚠️ Warning: namespace ({namespace}) already uses waypoint `{used}`; nothing was"
            " changed. `--overwrite` replaces it"
        )
        return False
    if labels.get(waypoints.MODE_LABEL) != "ambient":
        render.note(
            "⚠️ Warning: namespace is not enrolled in ambient. Consider running"
            f" `kubectl label namespace {namespace} {waypoints.MODE_LABEL}=ambient`"
        )
    return True


async def _made(client: kube_client.Client, wanted: dict[str, Any]) -> None:
    if await _class_is_missing(client):
        raise WaypointsUnserved(
            f"no control plane of the cluster runs Gateways of class `{waypoints.CLASS}`",
            still_working="nothing was changed in the cluster",
            hint="isthmus install --set profile=ambient; `isthmus waypoint generate` prints it",
        )
    await applying.apply(client, [wanted])


async def _class_is_missing(client: kube_client.Client) -> bool:
    return await client.find(kinds.GATEWAY_CLASS, waypoints.CLASS) is None


async def _ready(
    client: kube_client.Client, metadata: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    return await waiting.until(
        client,
        kinds.KUBERNETES_GATEWAY,
        metadata["name"],
        namespace=metadata["namespace"],
        missing=exposing.lacks,
        timeout_s=timeout_s,
        on_progress=lambda text: render.note(f"  {text}") if text else None,
    )


async def _found(
    client: kube_client.Client, namespace: str, *, everywhere: bool
) -> list[dict[str, Any]]:
    where = "" if everywhere else namespace or client.access.namespace or DEFAULT
    return waypoints.only(await _gateways(client, where))


async def _gateways(client: kube_client.Client, namespace: str) -> list[dict[str, Any]]:
    """Return the Gateways of a namespace or of all; none where the kind is not served."""
    try:
        return await client.list_(kinds.KUBERNETES_GATEWAY, namespace=namespace)
    except problems.ApiError as error:
        if not error.is_missing:
            raise
        return []


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    found: Sequence[dict[str, Any]],
    *,
    everywhere: bool,
) -> None:
    """Print a table, of all namespaces with one more column."""
    if everywhere:
        columns = ("NAMESPACE", *columns)
        rows = [(one["namespace"], *row) for one, row in zip(found, rows, strict=True)]
    render.table(columns, rows, gap=5)
