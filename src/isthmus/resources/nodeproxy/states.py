"""What a connection carries along on its way through a node's Envoy: whose it is, and where to.

Each fact is an object of Envoy's filter state. Those that are *transitive* go on to the connection
that leaves the node; of these the *hashed* ones keep pools apart. That matters: which network
namespace a connection leaves from does not count by itself, so that two pods with one identity
would share a tunnel, and one would call with the other's address.

Source: Envoy's documentation of well known filter state objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from google.protobuf import message

from isthmus.mesh.identities import SpiffeId
from isthmus.resources.envoy import messages
from isthmus.views import view

Value = value_pb2.FilterStateValue

HASHED: Final = "envoy.hashable_string"
PLAIN: Final = "envoy.string"


CLIENT: Final = "isthmus.client"
"""The address and port from which the pod's application called."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: under which key, of which of Envoy's kinds, and Envoy's format of its text."""

    key: str
    kind: str
    text: str
    shared: int = Value.TRANSITIVE


def of_pod(pod: view.nodeslices.EnrolledPod) -> list[Fact]:
    """Return from which network and as whom connections of a pod leave the node."""
    return [_left_from(pod), _pool_of(pod), _proven_by(pod)]


def of_application(pod: view.nodeslices.EnrolledPod) -> list[Fact]:
    """Return `of_pod` and between which addresses its application has connected."""
    target = "envoy.filters.listener.original_dst.local_ip"
    return [
        *of_pod(pod),
        # For the next listener only: beyond, they would be those of another call.
        Fact(CLIENT, PLAIN, "%DOWNSTREAM_REMOTE_ADDRESS%", Value.ONCE),
        Fact(target, target, "%DOWNSTREAM_LOCAL_ADDRESS%", Value.ONCE),
    ]


def carried_on() -> list[Fact]:
    """Return what the next listener has to know as well, of that which is for one only."""
    target = "envoy.filters.listener.original_dst.local_ip"
    return [
        Fact(CLIENT, PLAIN, f"%FILTER_STATE({CLIENT}:PLAIN)%", Value.ONCE),
        Fact(target, target, "%DOWNSTREAM_LOCAL_ADDRESS%", Value.ONCE),
    ]


def led_by_what_was_called(prefix: str) -> Fact:
    """Return that the cluster's name is what was called, after a prefix."""
    key = "envoy.tcp_proxy.cluster"
    return Fact(key, key, f"{prefix}|%DOWNSTREAM_LOCAL_ADDRESS%", Value.NONE)


def expected(identity: SpiffeId) -> Fact:
    """Return who must answer at the other end."""
    return Fact(_EXPECTED, _EXPECTED, str(identity))


def expected_by_endpoint(namespace: str, key: str) -> Fact:
    """Return that the metadata of the chosen endpoint says who must answer at the other end."""
    return Fact(_EXPECTED, _EXPECTED, f"%DYNAMIC_METADATA({namespace}:{key})%")


def noted(facts: Sequence[Fact]) -> messages.Fields:
    """Return the network filter that notes facts about each new connection."""
    return messages.extension(
        "envoy.filters.network.set_filter_state",
        set_filter_state_pb2.Config(on_new_connection=[_value(fact) for fact in facts]),
    )


def _value(fact: Fact) -> message.Message:
    text = {"text_format_source": {"inline_string": fact.text}}
    result: message.Message = Value(
        object_key=fact.key,
        factory_key=fact.kind,
        format_string=text,
        shared_with_upstream=fact.shared,
    )
    return result


_EXPECTED: Final = "envoy.network.upstream_subject_alt_names"


def _left_from(pod: view.nodeslices.EnrolledPod) -> Fact:
    key = "envoy.network.upstream_bind_override.network_namespace"
    return Fact(key, "envoy.network.network_namespace", _literal(pod.namespace_path))


def _pool_of(pod: view.nodeslices.EnrolledPod) -> Fact:
    return Fact("isthmus.pod", HASHED, _literal(pod.uid))


def _proven_by(pod: view.nodeslices.EnrolledPod) -> Fact:
    key = "envoy.tls.certificate_mappers.on_demand_secret"
    return Fact(key, HASHED, _literal(str(pod.identity)))


def _literal(text: str) -> str:
    return text.replace("%", "%%")
