"""`isthmus explain`: everything that decides one call, in the order in which it is decided."""

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from isthmus.base import clock, errors
from isthmus.cli import config_dumps, config_rows, options, proxies, render

WIDTH: Final = 80
LABEL: Final = 13
MOST_IDENTITIES: Final = 4
SHORT_ID: Final = 16
SECRETS: Final = "/config_dump?resource=dynamic_active_secrets"

Document = Any


@click.command()
@click.argument("pod")
@click.argument("host")
@options.cluster
@options.namespace
@click.option(
    "--control-plane-context",
    default=None,
    help="Context of the control plane, where it is not in the pod's cluster.",
)
@options.output("json")
def command(  # noqa: PLR0913  # a command's options
    pod: str,
    host: str,
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    control_plane_context: str | None,
    output: str,
) -> int:
    """Tell the story of a call from POD (`<pod>[.<namespace>]`, `deploy/<name>`) to HOST[:PORT].

    Name, listener, route, cluster; every endpoint of every cluster with its share of the calls or
    the reason why it has none; the policies that decide; the certificates' names. The exit status
    is 1 when no endpoint would get the call.

    Example: isthmus explain deploy/sleep.sample helloworld.sample:5000
    """
    place = proxies.Place(kubeconfig, context, control_plane_context, istio_namespace, namespace)
    document = options.run(_ask(place, pod, host))
    if output == "json":
        render.as_json(document)
    else:
        click.echo("\n".join(story(document)))
    return 0 if is_answered(document) else 1


async def _ask(place: proxies.Place, pod: str, host: str) -> Document:
    async with place.client() as client:
        proxy = await place.find(client, pod)
        document = await place.shown_by_home(proxy, "explain", host=host)
        try:
            text = await place.shown_by_proxy(client, proxy, SECRETS)
            document["certificates"]["own"] = _own(json.loads(text))
        except (errors.IsthmusError, ValueError):
            # Only the proxy itself has it; the rest of the story does not need it.
            document["certificates"]["own"] = None
        return document


def _own(configs: Document) -> Document:
    """Return the names of the certificate that the proxy shows others, from its own page."""
    section = {"@type": f"x.{config_dumps.SECRETS}", "dynamic_active_secrets": configs["configs"]}
    dump = config_dumps.parse({"configs": [section]}, pod="")
    now = clock.SystemClock().now()
    for entry in dump.of(config_dumps.SECRETS):
        row = config_rows.secret(entry, now=now)
        if row[1] == "Cert Chain":
            return {"serial": row[4], "notAfter": row[5], "isValid": row[3] == "true"}
    return None


def is_answered(document: Document) -> bool:
    """Say whether some endpoint would get the call; of what the mesh does not know, nothing is."""
    legs = document["legs"]
    return (
        document["service"] is None
        or any(leg["here"] for leg in legs)
        or any(
            endpoint["verdict"] != "excluded" and endpoint["authorization"]["outcome"] != "denied"
            for leg in legs
            for endpoint in leg["endpoints"]
        )
    )


def story(document: Document) -> Iterator[str]:
    """Yield the lines of the story."""
    caller, call = document["caller"], document["call"]
    network = f" ({caller['network']})" if caller["network"] else ""
    asked = f"{call['host']}:{call['port']}" if call["port"] else call["host"]
    yield from _wrapped(f"{caller['proxy']} in {caller['cluster']}{network} calls {asked}", "")
    yield ""
    yield from _name(document)
    yield from _way(document)
    for number, leg in enumerate(document["legs"], 1):
        yield ""
        yield from _leg(leg, number=number, count=len(document["legs"]))
    yield ""
    yield from _certificates(document["certificates"])


def _name(document: Document) -> Iterator[str]:
    service = document["service"]
    if service is None:
        yield from _fact("name", "the mesh has no service of this name that the caller may see")
        return
    yield from _fact("name", service["hostname"])
    used = ", ".join(service["used"])
    others = [
        f"{', '.join(vips)} in {cluster}"
        for cluster, vips in service["addresses"].items()
        if vips and vips != service["used"]
    ]
    text = f"{used} here" if used else f"none ({service['resolution']})"
    yield from _fact("address", "; ".join([text, *others]))
    if service["isClusterLocal"]:
        yield from _fact("", "cluster-local: each cluster keeps to its own endpoints")


def _way(document: Document) -> Iterator[str]:
    listener, route = document["listener"], document["route"]
    if listener is None:
        yield from _fact("listener", "none")
        return
    yield from _fact("listener", f"{listener['name']} ({listener['protocol']})")
    if route["name"]:
        host = route["virtualHost"] or "for hosts that nobody knows"
        yield from _fact("route", f"{route['name']}, {host}")


def _leg(leg: Document, *, number: int, count: int) -> Iterator[str]:
    if leg["match"] and (count > 1 or leg["virtualService"] or leg["match"] != "/*"):
        by = f", by VirtualService {leg['virtualService']}" if leg["virtualService"] else ""
        share = f"{leg['share']:.0%} of " if leg["share"] < 1 else ""
        title = f"rule {number}" if count > 1 else "rule"
        yield from _fact(title, f"{share}requests that match {leg['match']}{by}")
    if leg["hasFault"]:
        yield from _fact("", "with faults that the VirtualService injects")
    if leg["here"]:
        yield from _fact("cluster", f"none: {leg['here']}")
        return
    yield from _fact("cluster", leg["cluster"])
    if "type" not in leg:
        yield from _fact("", "there is no such cluster: the proxy answers 503 itself")
        return
    yield from _fact("", f"{leg['type']}, {leg['loadBalancer']}")
    if leg["destinationRule"]:
        rule = leg["destinationRule"]
        yield from _fact("", f"by DestinationRule {rule['name']} ({rule['place']})")
    if leg["endpoints"]:
        yield ""
        yield from _endpoints(leg["endpoints"])
        yield ""
        yield from _encryption(leg)
        yield from _policies(leg["endpoints"])
    elif leg["cluster"].startswith("outbound|"):
        yield from _fact("endpoints", "none in any cluster")


def _endpoints(endpoints: Iterable[Document]) -> Iterator[str]:
    shown = list(endpoints)
    rows = [("ENDPOINT", "CLUSTER", "SHARE", "WHY")]
    shares = percents([one["share"] for one in shown])
    for one, percent in zip(shown, shares, strict=True):
        is_dialled = one["verdict"] != "excluded" and not any(each["share"] for each in shown)
        share = "-" if one["verdict"] == "excluded" or is_dialled else f"{percent}%"
        rows.append((f"{one['address']}:{one['port']}", one["cluster"], share, _why(one)))
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    for row in rows:
        start = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  "
        yield from textwrap.wrap(
            row[3],
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )


def _why(one: Document) -> str:
    match one["verdict"]:
        case "excluded":
            return f"excluded: {one['reason']}"
        case "hidden":
            network = f" of {one['network']}" if one["network"] else ""
            way = f"hidden behind {', '.join(one['via'])}{network}"
            return way if not one["priority"] else f"{way}, priority {one['priority']}"
        case "failover":
            return f"failover, priority {one['priority']}"
        case _:
            return "preferred"


def percents(shares: list[float]) -> list[int]:
    """Return shares as whole percents that add up: the largest remainders are rounded up."""
    exact = [share * 100 for share in shares]
    found = [int(each) for each in exact]
    missing = round(sum(exact)) - sum(found)
    by_rest = sorted(range(len(exact)), key=lambda index: (found[index] - exact[index], index))
    for index in by_rest[:missing]:
        found[index] += 1
    return found


def _encryption(leg: Document) -> Iterator[str]:
    called = [one for one in leg["endpoints"] if one["verdict"] != "excluded"]
    mutual = [one for one in called if one["mutualTls"]]
    if leg.get("trusts"):
        yield from _fact("encryption", "TLS of the server's own, started by the proxy")
        yield from _fact("sni", leg["sni"] or "the host that each request names")
        yield from _fact("trusts", leg["trusts"])
        yield from _expected(leg["expectedIdentities"], unnamed="any name")
        return
    if not called:
        return
    if not mutual:
        yield from _fact("encryption", "none: bytes are passed as the application sends them")
    else:
        plain = len(called) - len(mutual)
        rest = f"; plain text to {plain} of {len(called)} endpoints" if plain else ""
        yield from _fact("encryption", f"mutual TLS{rest}")
        yield from _fact("sni", leg["sni"])
        yield from _expected(leg["expectedIdentities"], unnamed="any of the mesh")
    for text in dict.fromkeys(_accepted(one) for one in called):
        yield from _fact("accepted", text)


def _expected(names: list[str], *, unnamed: str) -> Iterator[str]:
    for index, name in enumerate(names[:MOST_IDENTITIES] or [unnamed]):
        yield from _fact("expects" if not index else "", name)
    if len(names) > MOST_IDENTITIES:
        yield from _fact("", f"and {len(names) - MOST_IDENTITIES} more")


def _accepted(one: Document) -> str:
    said = one["peerAuthentication"]
    if said["mode"] == "no proxy":
        return "plain text: the endpoint has no proxy"
    by = f"by PeerAuthentication {said['policy']}" if said["policy"] else "by default"
    return f"{said['mode']}, {by}"


def _policies(endpoints: Iterable[Document]) -> Iterator[str]:
    called = [one["authorization"] for one in endpoints if one["verdict"] != "excluded"]
    distinct = {json.dumps(one, sort_keys=True): one for one in called}
    for said in distinct.values():
        count = sum(1 for one in called if one == said)
        where = f" at {count} of {len(called)} endpoints" if len(distinct) > 1 else ""
        if said["outcome"] == "no proxy":
            yield from _fact("allowed", f"unjudged{where}: no proxy")
            continue
        why = "" if said["policies"] else ": no AuthorizationPolicy holds there"
        yield from _fact("allowed", f"{_outcome(said['outcome'])}{where}{why}")
        for policy in said["policies"]:
            yield from _fact("", f"{policy['action']} {policy['name']} {policy['fit']}")


def _outcome(outcome: str) -> str:
    return {"allowed": "yes", "denied": "no"}.get(outcome, outcome)


def _certificates(said: Document) -> Iterator[str]:
    yield from _fact("caller", said["identity"])
    own = said.get("own")
    if own:
        state = "" if own["isValid"] else ", not valid now"
        yield from _fact("", f"serial {own['serial'][:SHORT_ID]}…, until {own['notAfter']}{state}")
    issuer = said["issuer"]
    if issuer:
        yield from _fact("issuer", issuer["subject"])
        yield from _fact("", f"until {_until(issuer['notAfter'])}")
    for root in said["roots"]:
        yield from _fact("root", root["subject"])
        yield from _fact(
            "", f"sha256 {root['sha256'][:SHORT_ID]}…, until {_until(root['notAfter'])}"
        )


def _until(text: str) -> str:
    return text.replace("+00:00", "Z")


def _fact(label: str, text: str) -> list[str]:
    return _wrapped(text, f"{label:<{LABEL}}")


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
    )
