"""`isthmus proxy-status`: how far each proxy has come, or what one of them has differently."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from isthmus.base import clock
from isthmus.cli import asking, options, proxies, proxy_config, render
from isthmus.kube import client as kube_client

SHORT: Final[Mapping[str, str]] = {
    "envoy.config.cluster.v3.Cluster": "CDS",
    "envoy.config.listener.v3.Listener": "LDS",
    "envoy.config.endpoint.v3.ClusterLoadAssignment": "EDS",
    "envoy.config.endpoint.v3.LbEndpoint": "LEDS",
    "envoy.config.route.v3.RouteConfiguration": "RDS",
    "envoy.config.core.v3.TypedExtensionConfig": "ECDS",
    "envoy.extensions.transport_sockets.tls.v3.Secret": "SDS",
    "istio.networking.nds.v1.NameTable": "NDS",
    "istio.workload.Address": "WDS",
    "istio.security.Authorization": "WADS",
}
COLUMNS: Final = (
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
    ("ECDS", "extensionconfig"),
)
PREFIX: Final = "type.googleapis.com/"


@click.command()
@click.argument("pod", required=False, default="")
@options.cluster
@options.namespace
@click.option(
    "--control-plane-context",
    default=None,
    help="Context of the control plane, where it is not in the pod's cluster.",
)
@options.output("json")
@click.option(
    "--verbosity", "-v", type=int, default=0, help="1: one column for each type of resource."
)
def command(  # noqa: PLR0913  # each option of the command line is one
    pod: str,
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    control_plane_context: str | None,
    output: str,
    verbosity: int,
) -> int:
    """Print what each proxy was sent and has accepted.

    With a POD (`<pod>[.<namespace>]`, `deploy/<name>`), what its proxy has that is not as the
    control plane wants it; the exit status is 1 if there is anything.

    Example: isthmus proxy-status --context cluster1
    """
    if pod:
        place = proxies.Place(
            kubeconfig, context, control_plane_context, istio_namespace, namespace
        )
        sides = options.run(place.both_sides(pod))
        return proxy_config.print_differences(*sides, output=output)
    reached_by = options.accessed(kubeconfig, context=control_plane_context or context)

    async def ask() -> list[asking.Answer]:
        async with kube_client.Client(reached_by) as client:
            return await asking.control_planes(client, "/debug/syncz", namespace=istio_namespace)

    found = matching(options.run(ask()), namespace=namespace)
    if output == "json":
        render.as_json(found)
    elif verbosity:
        now = clock.SystemClock().now()
        headings = ("NAME", "CLUSTER", *(name for name, _ in COLUMNS), "ISTIOD", "VERSION")
        render.table(headings, (columns(status, now=now) for status in found), gap=5)
    else:
        headings = ("NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES")
        render.table(headings, (summary(status) for status in found), gap=5)
    for status in found:
        _note_errors(status)
    return 0


def matching(answers: Iterable[asking.Answer], *, namespace: str) -> list[dict[str, Any]]:
    """Return the proxies of a namespace, or all, each with whom it is connected to."""
    statuses = (
        {**status, "istiod": answer.istiod} for answer in answers for status in answer.document
    )
    return sorted(
        (
            status
            for status in statuses
            if not namespace or status["proxy"].endswith(f".{namespace}")
        ),
        key=lambda status: (str(status["proxy"]), str(status["cluster_id"])),
    )


def summary(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of a proxy: which types it is subscribed to."""
    resources = (status.get("resources") or {}).keys()
    kinds = [_short(each) for each in resources]
    order = [*SHORT.values()]
    kinds.sort(key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
    return (
        str(status["proxy"]),
        str(status["cluster_id"]),
        str(status["istiod"]),
        str(status.get("istio_version") or ""),
        f"{len(kinds)} ({','.join(kinds)})",
    )


def columns(status: Mapping[str, Any], *, now: clock.Instant) -> tuple[str, ...]:
    """Return the row of a proxy: how far it has come with each type."""
    resources = {_short(key): each for key, each in (status.get("resources") or {}).items()}
    return (
        str(status["proxy"]),
        str(status["cluster_id"]),
        *(_told(kind, long, status, resources, now) for kind, long in COLUMNS),
        str(status["istiod"]),
        str(status.get("istio_version") or ""),
    )


def _told(
    kind: str,
    long: str,
    status: Mapping[str, Any],
    resources: Mapping[str, Mapping[str, Any]],
    now: clock.Instant,
) -> str:
    found = cell(status.get(f"{long}_sent"), status.get(f"{long}_acked"), resources.get(kind), now)
    parts = resources.get("LEDS") if kind == "EDS" else None
    if parts is None or not found.startswith("SYNCED"):
        return found
    # Endpoints that are told one by one are endpoints, too.
    of_parts = cell(parts.get("sent"), parts.get("acked"), parts, now)
    return of_parts if of_parts.startswith(("STALE", "ERROR")) else found


def cell(
    sent: str | None, acked: str | None, resource: Mapping[str, Any] | None, now: clock.Instant
) -> str:
    """Say how far a proxy has come with one type, and since when."""
    if resource is None:
        return "IGNORED"
    if resource.get("lastError"):
        return "ERROR"
    if not sent:
        return "NOT SENT"
    since = resource.get("sentTime")
    age = f" ({_age(now - datetime.datetime.fromisoformat(since))})" if since else ""
    return ("SYNCED" if sent == acked else "STALE") + age


def _note_errors(status: Mapping[str, Any]) -> None:
    for key, each in (status.get("resources") or {}).items():
        if each.get("lastError"):
            names = ", ".join(each.get("refused") or ())
            what = f"{_short(key)} {names}".strip()
            render.note(f"{status['proxy']} refuses {what}: {each['lastError']}")


def _short(type_url: str) -> str:
    name = type_url.removeprefix(PREFIX)
    return SHORT.get(name, name.rpartition(".")[2])


def _age(passed: datetime.timedelta) -> str:
    seconds = max(int(passed.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
