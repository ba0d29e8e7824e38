"""The listener inside a node's Envoy that finds where calls lead, and how they are passed on.

All pods of a node share it, so that a change is told once and not once for each pod; and of a service
it holds the address alone, so that it stays small: its cluster has the name of what was called, and
says what is asked for. The way is found by address first and port second, in a tree: an address that
is known with another port is nobody's service, and goes where it was going. Envoy's own matching of
chains would look at the port first and never come back from it.

Source: spec section 7.4.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from envoy.config.core.v3 import backoff_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import message, wrappers_pb2
from xds.type.matcher.v3 import ip_pb2, matcher_pb2

from isthmus.resources.envoy import access_logs, filters, messages
from isthmus.resources.nodeproxy import states, upstreams
from isthmus.views import view

Listener = listener_pb2.Listener
Matcher = matcher_pb2.Matcher
Passage = view.nodeslices.Passage
Leading = view.nodeslices.Leading
Upstream = view.nodeslices.Upstream

ELSEWHERE: Final = "elsewhere"
LEADING: Final = frozenset(one.value for one in Leading)
ADDRESS_BITS: Final = 32
WHERE_TO: Final = "%DOWNSTREAM_LOCAL_ADDRESS%"
BY_SERVICE: Final = f"%CLUSTER_METADATA({upstreams.PROOF[0]}:{upstreams.AUTHORITY})%"
ATTEMPTS: Final = 5
BACK_OFF: Final = backoff_pb2.BackoffStrategy(
    base_interval=messages.seconds(0.025), max_interval=messages.seconds(0.25)
)
FORWARDED: Final = f'for="%FILTER_STATE({states.CLIENT}:PLAIN)%"'


def ways(slice_: view.nodeslices.Ways, name: str) -> message.Message:
    """Return the listener that finds where calls to services lead."""
    onwards = states.noted(states.carried_on())
    plain = states.noted([states.led_by_what_was_called(Leading.PLAIN.value)])
    tunnelled_ = states.noted([states.led_by_what_was_called(Leading.TUNNELLED.value)])
    result: message.Message = listener(
        name,
        filter_chains=[
            {"name": ELSEWHERE, "filters": [onwards, pass_on(Upstream.OTHERS.value)]},
            {"name": Leading.PLAIN.value, "filters": [plain, pass_on(Upstream.PLAINTEXT.value)]},
            {"name": Leading.TUNNELLED.value, "filters": [tunnelled_, _to_somebody()]},
            *_to_waypoints({way.chain for way in slice_.services} - LEADING),
        ],
        filter_chain_matcher=_by_address(_of_services(slice_)),
        access_log=access_logs.of_traffic(slice_.access_log),
    )
    return result


def others(slice_: view.nodeslices.OtherWays, name: str) -> message.Message:
    """Return the listener that finds where calls lead that are to no service.

    It is another one because it holds more: who must answer, for each account.
    """
    result: message.Message = listener(
        name,
        filter_chains=[
            {"name": ELSEWHERE, "filters": [pass_on(Upstream.PLAINTEXT.value)]},
            *_to_waypoints({way.waypoint for way in slice_.workloads if way.waypoint}),
            *_to_workloads(slice_),
        ],
        filter_chain_matcher=_by_address(_of_workloads(slice_)),
        access_log=access_logs.of_traffic(slice_.access_log),
    )
    return result


def _to_somebody() -> messages.Fields:
    """Return the network filter that asks one endpoint after another for a tunnel.

    Until one has said yes, nothing of what the application sent has left. They take turns.
    """
    return proxied(tunnelling(Upstream.TUNNELS.value, BY_SERVICE, attempts=ATTEMPTS))


def pass_on(cluster: str) -> messages.Fields:
    """Return the network filter that passes bytes on for as long as the two sides want."""
    return proxied(_proxy(cluster))


def tunnelling(cluster: str, asked: str, *, attempts: int = 1) -> tcp_proxy_pb2.TcpProxy:
    """Return what passes bytes on through tunnels of a cluster, in which `asked` is asked for.

    Args:
        cluster: Its endpoints take turns.
        asked: Envoy's format of it.
        attempts: How many of them may be asked for one call.
    """
    proxy = _proxy(cluster)
    if attempts > 1:
        proxy.max_connect_attempts.value = attempts
        proxy.backoff_options.CopyFrom(BACK_OFF)
    proxy.tunneling_config.hostname = asked
    proxy.tunneling_config.headers_to_add.add(header={"key": "forwarded", "value": FORWARDED})
    return proxy


def proxied(proxy: tcp_proxy_pb2.TcpProxy) -> messages.Fields:
    """Return the network filter that passes bytes on."""
    return messages.extension("envoy.filters.network.tcp_proxy", proxy)


def _proxy(cluster: str) -> tcp_proxy_pb2.TcpProxy:
    return tcp_proxy_pb2.TcpProxy(
        stat_prefix=cluster.partition("|")[0],
        cluster=cluster,
        idle_timeout=messages.FOREVER,
    )


def listener(name: str, **more: object) -> listener_pb2.Listener:
    """Return a listener inside the proxy, which knows where a connection was going."""
    return Listener(
        name=name,
        internal_listener={},
        listener_filters=[filters.original_destination()],
        **more,
    )


# --- ways


def _to_waypoints(asked: Iterable[str]) -> Iterator[messages.Fields]:
    for name in sorted(asked):
        told = proxied(tunnelling(name, WHERE_TO, attempts=ATTEMPTS))
        yield {"name": name, "filters": [told]}


def _to_workloads(slice_: view.nodeslices.OtherWays) -> Iterator[messages.Fields]:
    # One chain for all that share an identity.
    for identity in sorted({way.identity for way in slice_.workloads if not way.waypoint}):
        expected = states.noted([states.expected(identity)])
        told = [expected, proxied(tunnelling(Upstream.TUNNELS.value, WHERE_TO))]
        yield {"name": str(identity), "filters": told}


def _of_services(slice_: view.nodeslices.Ways) -> Iterator[messages.Fields]:
    ports = dict[str, list[tuple[int, str]]]()
    for way in slice_.services:
        ports.setdefault(way.address, []).append((way.port, way.chain))
    alike = dict[tuple[tuple[int, str], ...], list[str]]()
    for address, each in ports.items():
        alike.setdefault(tuple(each), []).append(address)
    return (_ranges(some, _by_port(each)) for each, some in sorted(alike.items()))


def _of_workloads(slice_: view.nodeslices.OtherWays) -> Iterator[messages.Fields]:
    groups = dict[str, list[str]]()
    for one in slice_.workloads:
        groups.setdefault(one.waypoint or str(one.identity), []).append(one.address)
    for name, addresses in sorted(groups.items()):
        yield _ranges(addresses, {"action": _chain(name)})


def _by_address(found: Iterable[messages.Fields]) -> matcher_pb2.Matcher:
    ranges = list(found)
    otherwise = {"action": _chain(ELSEWHERE)}
    if not ranges:
        return Matcher(on_no_match=otherwise)
    tree = {
        "input": messages.extension("ip", network_inputs_pb2.DestinationIPInput()),
        "custom_match": messages.extension("ip", ip_pb2.IPMatcher(range_matchers=ranges)),
    }
    return Matcher(matcher_tree=tree, on_no_match=otherwise)


def _by_port(group: Iterable[tuple[int, str]]) -> messages.Fields:
    by_port = {str(port): {"action": _chain(chain)} for port, chain in group}
    tree = {
        "input": messages.extension("port", network_inputs_pb2.DestinationPortInput()),
        "exact_match_map": {"map": by_port},
    }
    otherwise = {"action": _chain(ELSEWHERE)}
    return {"matcher": Matcher(matcher_tree=tree, on_no_match=otherwise)}


def _ranges(addresses: Sequence[str], found: messages.Fields) -> messages.Fields:
    return {
        "ranges": [
            {"address_prefix": one, "prefix_len": {"value": ADDRESS_BITS}}
            for one in sorted(addresses)
        ],
        "on_match": found,
    }


def _chain(name: str) -> messages.Fields:
    return messages.extension(name, wrappers_pb2.StringValue(value=name))
