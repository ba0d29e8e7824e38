"""What `isthmus multicluster check` makes of what it has learnt: each check, good or not.

A check that is not good has one cause and one fix. Pure: facts in, checks out.

Source: spec sections 1.2, 7.7 and 9.2.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import exceptions, x509

from isthmus.cli import asking
from isthmus.cli.check_facts import Door, Facts, Reached

SKEW_S: Final = 30.0
"""So far may clocks be apart: what was signed a moment ago must be valid already."""

SOON: Final = datetime.timedelta(days=14)
MOST_SIGNERS: Final = 6
LINKED: Final = frozenset({"linked", "synced"})
GATEWAYS: Final = "PILOT_ENABLE_GATEWAY_API"
AMBIENT: Final = "PILOT_ENABLE_AMBIENT"
LINKS: Final = "ENABLE_PEERING_DISCOVERY"
ALIKE: Final = (AMBIENT, LINKS)
ABOUT_OTHERS: Final = ("ISM-REG-03", "ISM-FLEET-")
"""How codes of findings begin that are about other clusters."""

NO_PLANE: Final = (
    "isthmus install; a cluster that has no control plane of its own is no part of this: "
    "isthmus --context PRIMARY remote-clusters says how well it is watched"
)

TUNNEL_PORT: Final = 15008
SILENCE_S: Final = 15.0
"""A control plane that listens says something every five seconds."""

MOST_NAMED, MOST_ERROR = 3, 200


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        about: A cluster, or `one → another`.
        said: What was found; of one that is not good the cause.
        fix: What mends it; empty when it is good.
    """

    about: str
    title: str
    is_good: bool
    said: str
    fix: str = ""


def good(about: str, title: str, said: str) -> Check:
    """Return a check that is good."""
    return Check(about, title, is_good=True, said=said)


def bad(about: str, title: str, said: str, fix: str) -> Check:
    """Return a check that is not."""
    return Check(about, title, is_good=False, said=said, fix=fix)


def pair(one: Facts, other: Facts) -> str:
    """Return how a way from one cluster to another is called."""
    return f"{one.title} → {other.title}"


# --- one cluster


def of_cluster(facts: Facts, *, others: Sequence[Facts], now: datetime.datetime) -> Iterator[Check]:
    """Yield the checks of one cluster by itself."""
    title = facts.title
    if facts.fault is not None:
        fix = facts.fault.hint or "see the page of its code in docs/errors"
        if isinstance(facts.fault, asking.NobodyRuns):
            fix = NO_PLANE
        said = f"{facts.fault.happened} ({facts.fault.code})"
        yield bad(title, "control plane", said, fix)
        if not facts.planes and not facts.signer:
            return
    else:
        shown = ", ".join(f"{pod} {version}" for pod, version in facts.planes)
        yield good(title, "control plane", f"answers: {shown}")
    yield _name(facts, others)
    yield _network(facts)
    yield _authority(facts, now)
    yield from _gateways(facts)
    yield from _node_proxies(facts)


def _name(facts: Facts, others: Sequence[Facts]) -> Check:
    change = "isthmus install --set values.global.multiCluster.clusterName=NAME"
    twins = [one.context for one in others if one is not facts and one.cluster == facts.cluster]
    if not facts.cluster or facts.cluster == "Kubernetes":
        said = f"its name is `{facts.cluster}`, as that of every cluster that was given none"
        return bad(facts.title, "name", said, change)
    if twins:
        said = f"`{facts.cluster}` is also the name of {', '.join(twins)}"
        return bad(facts.title, "name", said, change)
    return good(facts.title, "name", f"`{facts.cluster}`, and no other's")


def _network(facts: Facts) -> Check:
    if not facts.network:
        return bad(
            facts.title,
            "network",
            "nobody has said in which network it is",
            "kubectl label namespace istio-system topology.istio.io/network=NETWORK",
        )
    return good(facts.title, "network", f"`{facts.network}`")


def _authority(facts: Facts, now: datetime.datetime) -> Check:
    if not facts.signer:
        return bad(
            facts.title,
            "authority",
            "Secret cacerts is missing or cannot be read, so that it signs below a root of its own",
            "isthmus ca push --context CONTEXT, from one root for all clusters",
        )
    ends = min(one.not_valid_after_utc for one in facts.signer)
    day = f"{ends:%Y-%m-%d}"
    if ends <= now:
        return bad(
            facts.title,
            "authority",
            f"a certificate of what signs there has ended on {day}",
            "isthmus ca intermediate CLUSTER --force, then isthmus ca push",
        )
    if ends - now < SOON:
        return bad(
            facts.title,
            "authority",
            f"a certificate of what signs there ends on {day}, in {(ends - now).days} days",
            "isthmus ca intermediate CLUSTER --force, then isthmus ca push",
        )
    return good(facts.title, "authority", f"signs until {day}")


def _gateways(facts: Facts) -> Iterator[Check]:
    needs = AMBIENT in facts.environment and facts.environment[AMBIENT] == "true"
    if needs and facts.environment.get(GATEWAYS) != "true":
        yield bad(
            facts.title,
            "gateway",
            f"its control plane runs no Gateways: {GATEWAYS} is not `true`",
            f"isthmus install --set values.pilot.env.{GATEWAYS}=true",
        )
        return
    if not facts.doors:
        yield bad(
            facts.title,
            "gateway",
            "no gateway leads into it",
            "isthmus multicluster expose --context CONTEXT",
        )
    for door in facts.doors:
        title = f"gateway {door.title}"
        if door.problem:
            fix = f"kubectl describe gateway,service -n {door.title.partition('/')[0]}"
            yield bad(facts.title, title, door.problem, fix)
        elif not door.addresses:
            yield bad(
                facts.title,
                title,
                "it has no address outside of the cluster",
                "is there a load balancer? kubectl get service -n NAMESPACE",
            )
        else:
            ports = ", ".join(map(str, door.ports))
            yield good(facts.title, title, f"up at {', '.join(door.addresses)}, ports {ports}")


def _node_proxies(facts: Facts) -> Iterator[Check]:
    is_ambient = facts.environment.get(AMBIENT) == "true"
    if facts.node_proxies is None:
        if is_ambient:
            yield bad(
                facts.title,
                "node proxies",
                "ambient mode is on, and there is no DaemonSet istio-system/ztunnel",
                "isthmus install --set profile=ambient",
            )
        return
    wanted, ready = facts.node_proxies
    if ready < wanted:
        yield bad(
            facts.title,
            "node proxies",
            f"{ready} of {wanted} are ready",
            "kubectl get pods -n istio-system -l app=ztunnel -o wide",
        )
    else:
        yield good(facts.title, "node proxies", f"{ready} of {wanted} are ready")


# --- before clusters are linked


def before_link(one: Facts, other: Facts, reached: Iterable[Reached]) -> Iterator[Check]:
    """Yield what must be so before one cluster can use another."""
    yield _trust(one, other)
    yield _versions(one, other)
    yield _settings(one, other)
    yield _clocks(one, other)
    for each in reached:
        about, title = pair(one, other), f"{each.address}:{each.port}"
        if each.fix:
            yield bad(about, title, each.found, each.fix)
        else:
            yield good(about, title, each.found)


def places(one: Facts, other: Facts) -> list[tuple[str, int]]:
    """Return which addresses and ports of another cluster's gateways one must be able to reach."""
    return [
        (address, port)
        for door in other.doors
        if _is_needed(door, one, other)
        for address in door.addresses
        for port in door.ports
    ]


def _is_needed(door: Door, one: Facts, other: Facts) -> bool:
    """Say whether calls go through a gateway; within a network only discovery does."""
    return not door.problem and (one.network != other.network or TUNNEL_PORT in door.ports)


def _trust(one: Facts, other: Facts) -> Check:
    about, title = pair(one, other), "trust"
    if not one.signer or not other.signer:
        return bad(
            about,
            title,
            "it cannot be told who signs in one of them",
            "isthmus ca push --context CONTEXT",
        )
    listed = one.believed.get(other.domain)
    anchors = listed if listed is not None else one.believed.get("", ())
    if believes(anchors, other.signer):
        return good(about, title, f"identities of `{other.domain}` that are signed there count")
    if listed is not None:
        said = f"what is listed for `{other.domain}` does not vouch for what signs there"
    else:
        said = "they have no root in common"
    return bad(
        about,
        title,
        said,
        "isthmus multicluster trust --contexts=A,B, or one root for both: isthmus ca",
    )


def believes(anchors: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]) -> bool:
    """Say whether one of `anchors` vouches for the first of a chain, by way of the others."""
    at = chain[0]
    for _ in range(MOST_SIGNERS):
        if at in anchors or any(_has_signed(one, at) for one in anchors):
            return True
        above = next((one for one in chain[1:] if one != at and _has_signed(one, at)), None)
        if above is None:
            return False
        at = above
    return False


def _has_signed(issuer: x509.Certificate, issued: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, exceptions.InvalidSignature):
        return False
    return True


def _versions(one: Facts, other: Facts) -> Check:
    about = pair(one, other)
    ours, theirs = ({_minor(version) for _, version in each.planes} for each in (one, other))
    if not ours or not theirs:
        return bad(
            about, "versions", "a control plane did not say its version", "see its own checks above"
        )
    if ours != theirs:
        shown = f"{'/'.join(sorted(ours))} and {'/'.join(sorted(theirs))}"
        return bad(about, "versions", shown, "install the same version in both")
    return good(about, "versions", "/".join(sorted(ours)))


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _settings(one: Facts, other: Facts) -> Check:
    about = pair(one, other)
    for name in ALIKE:
        ours, theirs = one.environment.get(name, ""), other.environment.get(name, "")
        if ours != theirs:
            return bad(
                about,
                "settings",
                f"{name} is `{ours}` in one and `{theirs}` in the other",
                f"isthmus install --set values.pilot.env.{name}=true in both",
            )
    return good(about, "settings", "agree")


def _clocks(one: Facts, other: Facts) -> Check:
    apart = abs(one.offset_s - other.offset_s)
    if apart > SKEW_S:
        return bad(
            pair(one, other),
            "clocks",
            f"are {apart:.0f} s apart: certificates look expired, or not valid yet",
            "set the clocks of the nodes (NTP)",
        )
    return good(pair(one, other), "clocks", "agree")


# --- when they are linked


def after_link(one: Facts, other: Facts) -> Iterator[Check]:
    """Yield what must be so for one cluster to use another."""
    yield _heard(one, other)
    yield from _applied(one, other)
    ways = [way for way in one.ways if _leads_to(way, other)]
    for way in ways:
        yield _climbed(way, about=pair(one, other))
    is_one_network = bool(one.network) and one.network == other.network
    if not ways and not is_one_network:
        yield bad(
            pair(one, other),
            "way",
            f"its control plane knows no gateway of network `{other.network}`",
            "isthmus multicluster expose there, then isthmus multicluster link",
        )
    elif not ways:
        yield good(pair(one, other), "way", "both are in one network: pods are called directly")


def _leads_to(way: Mapping[str, Any], other: Facts) -> bool:
    peer = str(way.get("peer") or "")
    return peer == other.cluster if peer else way.get("network") == other.network


def _heard(one: Facts, other: Facts) -> Check:
    about = pair(one, other)
    row = next((row for row in one.known if row.get("id") == other.cluster), None)
    if row is None:
        return bad(
            about,
            "link",
            f"its control plane does not know a cluster `{other.cluster}`",
            f"isthmus multicluster link --from {one.context} --to {other.context}",
        )
    by = row.get("link") or row.get("secretName") or "configuration"
    if row.get("syncStatus") not in LINKED:
        said = f"{by}: {row.get('error') or row.get('syncStatus')}"
        return bad(about, "link", said, "mend the first rung below that is broken, or link again")
    version = f", version {row['appliedVersion']} applied" if row.get("appliedVersion") else ""
    return good(about, "link", f"{by}: heard{version}")


def _applied(one: Facts, other: Facts) -> Iterator[Check]:
    """Yield how far a cluster has come with what another one tells it, as that one sees it."""
    for row in other.told or ():
        if row["cluster"] == one.cluster:
            said, fix = _behind(row, one, other) or ("", "")
            title = f"told {row['istiod']}"
            if said:
                yield bad(pair(one, other), title, said, fix)
            else:
                version = row["toldVersion"]
                text = f"version {version} is told, and applied" if version else "nothing to tell"
                yield good(pair(one, other), title, text)


def _behind(row: Mapping[str, Any], one: Facts, other: Facts) -> tuple[str, str] | None:
    """Return why what is told is not what is applied, and what mends it; None if it is."""
    told, applied = row["toldVersion"], row["appliedVersion"]
    restart = f"kubectl --context {one.context} rollout restart deployment istiod -n istio-system"
    if row["behindSeconds"]:
        before = f"version {applied}" if applied else "nothing"
        said = f"version {told} was told {row['behindSeconds']:.0f} s ago, and {before} is applied"
        if row["heardSeconds"] > SILENCE_S:
            silent = f"; nothing was heard from it for {row['heardSeconds']:.0f} s"
            return said + silent, "is what lies between dropping idle connections? Else " + restart
        return f"{said}; it answers otherwise: it is stuck, or has too much to do", restart
    if row["refused"]:
        names = ", ".join(row["refused"][:MOST_NAMED])
        return (
            f"version {told} is applied but for {len(row['refused'])} refused: {names}:"
            f" {str(row['error'])[:MOST_ERROR]}",
            f"mend these Services in {other.title}, or what the link in {one.title} grants",
        )
    return None


def _climbed(way: Mapping[str, Any], *, about: str) -> Check:
    title = f"{way['way']} {way['address']}:{way['port']}"
    rungs = [str(one["rung"]) for one in way["rungs"] if one["outcome"] == "good"]
    broken = next((one for one in way["rungs"] if one["outcome"] == "broken"), None)
    if broken is None:
        last = way["rungs"][-1]
        more = f" ({last['found']})" if last["outcome"] == "skipped" else ""
        return good(about, title, " → ".join(rungs) + more)
    return bad(about, title, f"{broken['rung']}: {broken['found']}", str(broken["fix"]))


def findings(facts: Facts) -> Iterator[Check]:
    """Yield what a control plane itself says is wrong with other clusters."""
    for one in facts.findings:
        if str(one.get("code", "")).startswith(ABOUT_OTHERS):
            said = f"{one['subject']}: {one['happened']}"
            yield bad(facts.title, str(one["code"]), said, str(one.get("hint") or "see its page"))
