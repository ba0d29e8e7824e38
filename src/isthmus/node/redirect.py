"""Puts the redirect of this pod into the kernel; what the injected init container runs.

All rules are replaced in one step, so it may run again, as after a restart of the container.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from isthmus.base import errors, logs, netlink, nftables
from isthmus.capture import arguments, rules
from isthmus.node import resolvconf, settings

TABLE = "istio"
FAMILY = nftables.IPV4
CHAINS = {
    rules.Way.ARRIVING: ("arriving", nftables.PREROUTING, nftables.DESTINATION_NAT, "nat"),
    rules.Way.LEAVING: ("leaving", nftables.OUTPUT, nftables.DESTINATION_NAT, "nat"),
    rules.Way.ARRIVING_RAW: ("arriving-raw", nftables.PREROUTING, nftables.RAW, "filter"),
    rules.Way.LEAVING_RAW: ("leaving-raw", nftables.OUTPUT, nftables.RAW, "filter"),
    rules.Way.ARRIVING_ROUTED: (
        "arriving-routed",
        nftables.PREROUTING,
        nftables.MANGLE,
        "filter",
    ),
    rules.Way.LEAVING_ROUTED: ("leaving-routed", nftables.OUTPUT, nftables.MANGLE, "route"),
}
TRANSPORTS = {rules.Transport.TCP: nftables.tcp, rules.Transport.UDP: nftables.udp}

_LOG = logs.Log("isthmus.redirect")


class RulesRefused(errors.IsthmusError):
    """The kernel did not take the packet rules."""

    code = "ISM-NODE-001"


def run(argv: Sequence[str], *, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Apply what the arguments of istio-iptables ask for, in this network namespace.

    `ISTIO_META_DNS_CAPTURE` in the environment says the same as `--redirect-dns`.

    Raises:
        ArgumentsRefused: The arguments cannot be read (ISM-CAP-001).
        RulesRefused: The kernel refused; nothing has changed (ISM-NODE-001).
    """
    wanted = arguments.parse(
        argv,
        servers=resolvconf.read(settings.resolv_conf(environment)).servers,
        redirects_dns=settings.captures_dns(environment),
    )
    made = rules.rules(wanted)
    try:
        nftables.apply(messages(made))
    except OSError as error:
        raise RulesRefused(
            "the kernel refused the packet rules of this pod",
            detail=str(error),
            hint="the init container needs the capability NET_ADMIN, and the kernel nf_tables "
            "with nft_redir and nft_nat",
        ) from error
    _LOG.info(
        "traffic redirected",
        outbound=wanted.outbound_port,
        inbound=wanted.inbound_port,
        rules=len(made),
    )


def messages(
    made: Sequence[rules.Rule], *, kept: Collection[rules.Way] = ()
) -> list[netlink.Message]:
    """Turn rules into one batch for the kernel.

    Connections that were translated go on being so as long as their ways are there: those in
    `kept` are, even without rules.
    """
    batch = list(nftables.replaced(TABLE, family=FAMILY))
    used = {rule.way for rule in made}.union(kept)
    for way, (name, hook, priority, kind) in CHAINS.items():
        if way in used:
            batch.append(
                nftables.chain(TABLE, name, hook=hook, priority=priority, kind=kind, family=FAMILY)
            )
    batch.extend(_message(rule) for rule in made)
    return batch


def _message(rule: rules.Rule) -> netlink.Message:
    matches = (_expression(match, way=rule.way) for match in rule.matches)
    return nftables.rule(
        TABLE,
        CHAINS[rule.way][0],
        TRANSPORTS[rule.transport](),
        *matches,
        nftables.counter(),
        *_outcome(rule.to),
        family=FAMILY,
    )


def _outcome(
    to: int | rules.Zone | rules.Remember | rules.Reroute | rules.Silence | None,
) -> tuple[nftables.Expression, ...]:
    match to:
        case None:
            return (nftables.RETURN,)
        case rules.Zone(number):
            return nftables.set_zone(number), nftables.RETURN
        case rules.Remember(mark):
            return (nftables.mark_connection(mark),)
        case rules.Reroute(mark):
            return (nftables.set_mark(mark),)
        case rules.Silence():
            return (nftables.DROP,)
        case _:
            return (nftables.redirect(to),)


def _expression(match: rules.Match, *, way: rules.Way) -> nftables.Expression:
    made: nftables.Expression
    match match:
        case rules.User() | rules.Group():
            made = _owner(match)
        case rules.Port(number, negated):
            made = nftables.destination_port(number, negate=negated)
        case rules.SourcePort(number):
            made = nftables.source_port(number)
        case rules.Source(cidr):
            made = nftables.source(cidr)
        case rules.Destination(cidr, negated):
            made = nftables.destination(cidr, negate=negated)
        case rules.Interface(name):
            arrives = way in (rules.Way.ARRIVING, rules.Way.ARRIVING_RAW)
            made = nftables.meta("iifname" if arrives else "oifname", name)
        case rules.Mark(number):
            made = nftables.meta("mark", number)
        case rules.UnderWay() | rules.Refusal():
            made = _of_openings(match)
        case rules.ConnectionMark(number):
            made = nftables.connection_mark(number)
        case _:
            assert_never(match)
    return made


def _of_openings(match: rules.UnderWay | rules.Refusal) -> nftables.Expression:
    if isinstance(match, rules.Refusal):
        return nftables.refusing()
    return nftables.opening(negate=True)


def _owner(match: rules.User | rules.Group) -> nftables.Expression:
    if isinstance(match, rules.User):
        return nftables.meta("skuid", match.uid)
    return nftables.meta("skgid", match.gid)
