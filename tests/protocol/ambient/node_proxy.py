"""Istio's node proxy as a client of discovery: what it asks, keeps, refuses and asks again.

It keeps the version of each resource that it was told, gives all of them back when it comes again,
and waits for what it demanded until it hears that name, be it as there or as removed.

Source: spec section 7.2.
"""

from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from isthmus.resources.snapshot import ADDRESSES, AUTHORIZATIONS, Snapshot
from isthmus.testing import playbook
from isthmus.wire import encoding
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour
from isthmus_proto.istio.security import authorization_pb2
from isthmus_proto.istio.workload import workload_pb2

TYPES = (ADDRESSES, AUTHORIZATIONS)
KINDS = {ADDRESSES: workload_pb2.Address, AUTHORIZATIONS: authorization_pb2.Authorization}
NODE = "ztunnel~10.0.0.9~ztunnel-1.istio-system~istio-system.svc.cluster.local"


class Unfit(Exception):  # noqa: N818
    """A resource that a node proxy would refuse."""


@dataclass
class NodeProxy:
    """One node proxy, over as many streams as it opens.

    Attributes:
        known: The version of each resource, by type and name.
        holds: What it works with.
        heard: Names of each message of the stream, in order; removed ones with a minus.
        waits_for: Names that it demanded and has not heard of.
        unready: Types of which it must hear before it is ready.
        refuses: Names that it refuses, for a test.
    """

    on_demand: bool = False
    known: dict = field(default_factory=lambda: {kind: {} for kind in TYPES})
    holds: dict = field(default_factory=lambda: {kind: {} for kind in TYPES})
    heard: list = field(default_factory=list)
    waits_for: set = field(default_factory=set)
    unready: set = field(default_factory=lambda: set(TYPES))
    refuses: set = field(default_factory=set)
    talk: session.Session | None = None

    def connect(self):
        """Open a stream and say what is wanted first."""
        self.talk = session.Session(Flavour.DELTA)
        self.heard.clear()
        for kind in TYPES:
            said = discovery_pb2.DeltaDiscoveryRequest(
                type_url=kind, initial_resource_versions=self.known[kind]
            )
            said.node.id = NODE
            if self.on_demand and kind == ADDRESSES:
                # To subscribe to nothing there is no other way.
                said.resource_names_subscribe.append("*")
                said.resource_names_unsubscribe.append("*")
            self._say(said)

    def demand(self, name):
        """Ask for a name that is needed now."""
        self.waits_for.add(name)
        self.known[ADDRESSES].setdefault(name, "")
        said = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESSES)
        said.resource_names_subscribe.append(name)
        self._say(said)

    def given(self, snapshot: Snapshot, before: Snapshot | None = None):
        """Let the control plane know what should be there, and hear what it says."""
        changed = None if before is None else difference(before, snapshot)
        self.talk.given(snapshot, changed)
        self.listen()

    def listen(self):
        """Hear all that is to be said."""
        while offer := self.talk.next():
            content = encoding.response(offer, flavour=Flavour.DELTA)
            self._hear(discovery_pb2.DeltaDiscoveryResponse.FromString(content))

    def _say(self, said):
        request, _ = encoding.request(said.SerializeToString(), flavour=Flavour.DELTA)
        for action in self.talk.heard(request):
            assert isinstance(action, messages.Report), action

    def _hear(self, said):
        kind = said.type_url
        faults = [fault for one in said.resources if (fault := self._take(kind, one))]
        for name in said.removed_resources:
            self.holds[kind].pop(name, None)
            self.known[kind].pop(name, None)
            self.waits_for.discard(name)
        self.heard.append(
            sorted(
                [*(one.name for one in said.resources), *(f"-{n}" for n in said.removed_resources)]
            )
        )
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=kind, response_nonce=said.nonce)
        if faults:
            answer.error_detail.CopyFrom(status_pb2.Status(code=3, message="; ".join(faults)))
        else:
            self.unready.discard(kind)
        self._say(answer)

    def _take(self, kind, resource):
        self.waits_for.discard(resource.name)
        try:
            assert resource.resource.type_url == kind
            self.holds[kind][resource.name] = understood(kind, resource)
            if resource.name in self.refuses:
                raise Unfit("refused")
        except Unfit as fault:
            return f"{resource.name}: {fault}"
        self.known[kind][resource.name] = resource.version
        return ""


def understood(kind, resource):
    """Return a resource's content; what Istio's node proxy could not read is unfit."""
    content = KINDS[kind].FromString(resource.resource.value)
    if kind == AUTHORIZATIONS:
        return content
    found = content.WhichOneof("type")
    if found == "workload":
        _check_workload(content.workload, resource.name)
    elif found == "service":
        _check_service(content.service, resource.name)
    else:
        raise Unfit("neither workload nor service")
    return content


def _check_workload(one, name):
    _require(one.uid == name, "goes by another name")
    _require(all(len(address) in {4, 16} for address in one.addresses), "no address")
    _require(all("/" in service for service in one.services), "no service")
    _require(one.tunnel_protocol != workload_pb2.LEGACY_ISTIO_MTLS, "unknown tunnel")
    for gateway in ("waypoint", "network_gateway"):
        if one.HasField(gateway):
            _require(getattr(one, gateway).WhichOneof("destination"), "leads nowhere")


def _check_service(one, name):
    _require(f"{one.namespace}/{one.hostname}" == name, "goes by another name")
    _require(all(len(each.address) in {4, 16} for each in one.addresses), "no address")
    scopes = one.load_balancing.routing_preference
    _require(workload_pb2.LoadBalancing.UNSPECIFIED_SCOPE not in scopes, "unknown scope")


def _require(holds, fault):
    if not holds:
        raise Unfit(fault)


def difference(old: Snapshot, new: Snapshot):
    """Return the names whose version differs, by type."""

    def versions(snapshot):
        return {
            kind: {name: one.version for name, one in snapshot.of(kind).items()} for kind in TYPES
        }

    return playbook.difference(versions(old), versions(new))
