"""The listeners inside a node's Envoy: where calls lead, and how they are passed on.

All pods of a node share them, so that a change of a service is told once and not once for each pod.
The way is found by address first and port second, in a tree: an address that is known with another
port is nobody's service, and goes where it was going. Envoy's own matching of chains would look at
the port first and never come back from it.

Source: spec section 7.4.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

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
Upstream = view.nodeslices.Upstream

ELSEWHERE: Final = "elsewhere"
ADDRESS_BITS: Final = 32
WHERE_TO: Final = "%DOWNSTREAM_LOCAL_ADDRESS%"
WHAT_WAS_CALLED: Final = f"%FILTER_STATE({states.CALLED}:PLAIN)%"
BY_ENDPOINT: Final = f"%DYNAMIC_METADATA({upstreams.PROOF[0]}:{upstreams.AUTHORITY})%"
ASKED: Final = {
    Passage.TUNNEL: WHERE_TO,
    Passage.WAYPOINT: WHAT_WAS_CALLED,
    Passage.GATEWAY: BY_ENDPOINT,
}
"""What is asked for at the end of tunnels."""
FORWARDED: Final = f'for="%FILTER_STATE({states.CLIENT}:PLAIN)%"'


def ways(slice_: view.nodeslices.Ways, name: str) -> message.Message:
    """Return the listener that finds where calls of all pods lead."""
    log = slice_.access_log
    result: message.Message = listener(
        name,
        filter_chains=[
            {"name": ELSEWHERE, "filters": [pass_on(Upstream.PLAINTEXT.value, log_path=log)]},
            *_to_services(slice_),
            *_to_workloads(slice_),
        ],
        filter_chain_matcher=_by_address(slice_),
    )
    return result


def passage(slice_: view.nodeslices.PassageListener, name: str) -> message.Message:
    """Return the listener that passes connections on to endpoints that were chosen."""
    if slice_.passage is Passage.PLAINTEXT:
        told = [pass_on(Upstream.PLAINTEXT.value, log_path=slice_.access_log)]
    else:
        to = Upstream.GATEWAYS if slice_.passage is Passage.GATEWAY else Upstream.TUNNELS
        proxy = tunnelling(to.value, ASKED[slice_.passage], log_path=slice_.access_log)
        told = [states.noted([states.expected_by_endpoint(*upstreams.PROOF)]), proxied(proxy)]
    result: message.Message = listener(name, filter_chains=[{"filters": told}])
    return result


def pass_on(cluster: str, *, log_path: str = "") -> messages.Fields:
    """Return the network filter that passes bytes on for as long as the two sides want."""
    return messages.extension("envoy.filters.network.tcp_proxy", _proxy(cluster, log_path))


def tunnelled(asked: str = WHERE_TO, *, log_path: str = "") -> messages.Fields:
    """Return the network filter that passes bytes on through a tunnel.

    Args:
        asked: Envoy's format of what is asked for at its end.
        log_path: Of the access log; empty for none.
    """
    return proxied(tunnelling(Upstream.TUNNELS.value, asked, log_path=log_path))


def tunnelling(
    cluster: str, asked: str, *, log_path: str = "", attempts: int = 1
) -> tcp_proxy_pb2.TcpProxy:
    """Return what passes bytes on through tunnels of a cluster, in which `asked` is asked for."""
    proxy = _proxy(cluster, log_path)
    proxy.max_connect_attempts.value = attempts
    proxy.tunneling_config.hostname = asked
    proxy.tunneling_config.headers_to_add.add(header={"key": "forwarded", "value": FORWARDED})
    return proxy


def proxied(proxy: tcp_proxy_pb2.TcpProxy) -> messages.Fields:
    """Return the network filter that passes bytes on."""
    return messages.extension("envoy.filters.network.tcp_proxy", proxy)


def _proxy(cluster: str, log_path: str) -> tcp_proxy_pb2.TcpProxy:
    return tcp_proxy_pb2.TcpProxy(
        stat_prefix=cluster.partition("|")[0],
        cluster=cluster,
        idle_timeout=messages.FOREVER,
        access_log=access_logs.of_traffic(log_path),
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


def _to_services(slice_: view.nodeslices.Ways) -> Iterator[messages.Fields]:
    asked = {way.cluster_name for way in slice_.services if way.asks}
    asked |= {way.waypoint for way in slice_.workloads if way.waypoint}
    for name in sorted(asked | {way.cluster_name for way in slice_.services}):
        passed = pass_on(name, log_path=slice_.access_log)
        told = [states.noted([states.called()]), passed] if name in asked else [passed]
        yield {"name": name, "filters": told}


def _to_workloads(slice_: view.nodeslices.Ways) -> Iterator[messages.Fields]:
    # One chain for all that share an identity.
    for identity in sorted({way.identity for way in slice_.workloads if not way.waypoint}):
        expected = states.noted([states.expected(identity)])
        told = [expected, tunnelled(log_path=slice_.access_log)]
        yield {"name": str(identity), "filters": told}


def _by_address(slice_: view.nodeslices.Ways) -> matcher_pb2.Matcher | None:
    by_address = dict[str, list[view.nodeslices.ServiceWay]]()
    for way in slice_.services:
        by_address.setdefault(way.address, []).append(way)
    ranges = [_range(address, _by_port(group)) for address, group in sorted(by_address.items())]
    groups = dict[str, list[str]]()
    for one in slice_.workloads:
        groups.setdefault(one.waypoint or str(one.identity), []).append(one.address)
    for name, addresses in sorted(groups.items()):
        ranges.append(_ranges(addresses, {"action": _chain(name)}))
    otherwise = {"action": _chain(ELSEWHERE)}
    if not ranges:
        return Matcher(on_no_match=otherwise)
    tree = {
        "input": messages.extension("ip", network_inputs_pb2.DestinationIPInput()),
        "custom_match": messages.extension("ip", ip_pb2.IPMatcher(range_matchers=ranges)),
    }
    return Matcher(matcher_tree=tree, on_no_match=otherwise)


def _by_port(group: Iterable[view.nodeslices.ServiceWay]) -> messages.Fields:
    by_port = {str(way.port): {"action": _chain(way.cluster_name)} for way in group}
    tree = {
        "input": messages.extension("port", network_inputs_pb2.DestinationPortInput()),
        "exact_match_map": {"map": by_port},
    }
    otherwise = {"action": _chain(ELSEWHERE)}
    return {"matcher": Matcher(matcher_tree=tree, on_no_match=otherwise)}


def _range(address: str, found: messages.Fields) -> messages.Fields:
    return _ranges([address], found)


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
