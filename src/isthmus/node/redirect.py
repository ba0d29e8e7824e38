"""Puts the redirect of this pod into the kernel; what the injected init container runs.

All rules are replaced in one step, so it may run again, as after a restart of the container.
"""

from collections.abc import Sequence
from typing import assert_never

from isthmus.base import errors, logs, netlink, nftables
from isthmus.capture import arguments, rules

TABLE = "istio"
FAMILY = nftables.IPV4
CHAINS = {
    rules.Way.ARRIVING: ("arriving", nftables.PREROUTING),
    rules.Way.LEAVING: ("leaving", nftables.OUTPUT),
}

_LOG = logs.Log("isthmus.redirect")


class RulesRefused(errors.IsthmusError):
    """The kernel did not take the packet rules."""

    code = "ISM-NODE-001"


def run(argv: Sequence[str]) -> None:
    """Apply what the arguments of istio-iptables ask for, in this network namespace.

    Raises:
        ArgumentsRefused: The arguments cannot be read (ISM-CAP-001).
        RulesRefused: The kernel refused; nothing has changed (ISM-NODE-001).
    """
    wanted = arguments.parse(argv)
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


def messages(made: Sequence[rules.Rule]) -> list[netlink.Message]:
    """Turn rules into one batch for the kernel."""
    batch = list(nftables.replaced(TABLE, family=FAMILY))
    for name, hook in CHAINS.values():
        batch.append(
            nftables.chain(TABLE, name, hook=hook, priority=nftables.DESTINATION_NAT, family=FAMILY)
        )
    batch.extend(_message(rule) for rule in made)
    return batch


def _message(rule: rules.Rule) -> netlink.Message:
    verdict = nftables.RETURN if rule.to is None else nftables.redirect(rule.to)
    matches = (_expression(match, way=rule.way) for match in rule.matches)
    return nftables.rule(
        TABLE,
        CHAINS[rule.way][0],
        nftables.tcp(),
        *matches,
        nftables.counter(),
        verdict,
        family=FAMILY,
    )


def _expression(match: rules.Match, *, way: rules.Way) -> nftables.Expression:
    made: nftables.Expression
    match match:
        case rules.Port(number, negated):
            made = nftables.destination_port(number, negate=negated)
        case rules.Source(cidr):
            made = nftables.source(cidr)
        case rules.Destination(cidr, negated):
            made = nftables.destination(cidr, negate=negated)
        case rules.Interface(name):
            made = nftables.meta("iifname" if way is rules.Way.ARRIVING else "oifname", name)
        case rules.Mark(number):
            made = nftables.meta("mark", number)
        case rules.User(uid):
            made = nftables.meta("skuid", uid)
        case rules.Group(gid):
            made = nftables.meta("skgid", gid)
        case _:
            assert_never(match)
    return made
