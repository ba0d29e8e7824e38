"""Debug types on discovery streams, which is how Istio's command line asks a control plane.

A stream whose first message asks for `istio.io/debug…` is no proxy's: it has no node that must
agree with its proof, is told no configuration, and sees what `debugging` lets its caller see.

Source: spec sections 4.5 and 9.1; docs/decisions/0014.
"""

import http
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from envoy.admin.v3 import config_dump_pb2  # noqa: F401  # its types are packed
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import any_pb2, json_format

from isthmus.base import version
from isthmus.resources.snapshot import TypeUrl
from isthmus.wire import callers, debugging
from isthmus.xds import messages
from isthmus.xds.messages import Flavour

DEBUG: Final = "istio.io/debug"
SYNCZ: Final = f"{DEBUG}/syncz"
CONFIG_DUMP: Final = f"{DEBUG}/config_dump"
CONNECTIONS: Final = frozenset({"istio.io/connect", "istio.io/connections"})
PER_TYPE: Final[Mapping[str, str]] = {
    "cluster": "cluster_config",
    "listener": "listener_config",
    "route": "route_config",
    "endpoint": "endpoint_config",
}
"""Where the state of a type stands in the older form of the document."""

Resource = tuple[str, any_pb2.Any]


class Refused(Exception):  # noqa: N818  # how the stream ends, no fault of ours
    """The caller may not see this, or does not say what."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Asides:
    """Answers questions that are no proxy's."""

    def __init__(self, desk: debugging.Desk, *, pod: str) -> None:
        self._desk = desk
        info = {"version": version.VERSION, "revision": "isthmus", "status": "Clean"}
        # Istio's command line reads from here whom it has heard, and in which version.
        self._identifier = json.dumps({"Component": "istiod", "ID": pod, "Info": info})
        self._numbers = itertools.count(1)

    def placed(self, credentials: callers.Credentials) -> callers.Credentials:
        """Return the credentials of who names no cluster, as those of the control plane's own."""
        return callers.Credentials(
            credentials.token, self._desk.own_cluster, credentials.peer_identities, credentials.peer
        )

    async def answer(
        self, request: messages.Request, caller: callers.Caller, *, flavour: Flavour
    ) -> tuple[str, bytes]:
        """Return the nonce and the message that answer a request.

        Raises:
            Refused: The caller may not see this, or does not say what.
        """
        if self._desk.is_busy_with(caller):
            raise Refused("RESOURCE_EXHAUSTED", debugging.TOO_MANY.strip())
        await self._desk.gather()
        names = (*request.names, *request.subscribe)
        found = list(self._found(request.type_url, names, self._desk.viewer(caller)))
        nonce = f"aside-{next(self._numbers)}"
        return nonce, self._message(found, request.type_url, nonce, flavour)

    def _found(
        self, type_url: str, names: tuple[str, ...], viewer: debugging.Viewer
    ) -> Iterator[Resource]:
        if type_url == SYNCZ:
            for status in self._document("syncz", viewer):
                yield str(status["proxy"]), _packed(client_config(status))
        elif type_url in CONNECTIONS:
            for client in self._document("adsz", viewer)["clients"]:
                node = base_pb2.Node(id=str(client["connectionId"]))
                node.metadata.update(client["metadata"])
                yield node.id, _packed(node)
        elif type_url == CONFIG_DUMP:
            target = f"config_dump?proxyID={_only(names)}"
            for index, config in enumerate(self._document(target, viewer).get("configs", [])):
                packed: Any = json_format.ParseDict(config, any_pb2.Any())
                yield str(index), packed
        else:
            inner = type_url.removeprefix(DEBUG).strip("/")
            target = inner or _only(names)
            text = self._text(target, viewer)
            yield target, any_pb2.Any(type_url=type_url, value=text.encode())

    def _text(self, target: str, viewer: debugging.Viewer) -> str:
        answer = self._desk.answer(target, viewer)
        if answer.status == http.HTTPStatus.FORBIDDEN:
            raise Refused("PERMISSION_DENIED", answer.text.strip())
        return answer.text

    def _document(self, target: str, viewer: debugging.Viewer) -> Any:  # noqa: ANN401  # of JSON
        answer = self._desk.answer(target, viewer)
        match answer.status:
            case http.HTTPStatus.OK:
                return json.loads(answer.text)
            case http.HTTPStatus.FORBIDDEN:
                raise Refused("PERMISSION_DENIED", answer.text.strip())
            case http.HTTPStatus.NOT_FOUND:
                return {}  # Another replica may have this proxy: nothing is no failure.
            case _:
                raise Refused("INVALID_ARGUMENT", answer.text.strip())

    def _message(
        self, found: Iterable[Resource], type_url: TypeUrl, nonce: str, flavour: Flavour
    ) -> bytes:
        said = base_pb2.ControlPlane(identifier=self._identifier)
        if flavour is Flavour.DELTA:
            delta = discovery_pb2.DeltaDiscoveryResponse(
                type_url=type_url, nonce=nonce, control_plane=said
            )
            for name, packed in found:
                delta.resources.append(discovery_pb2.Resource(name=name, resource=packed))
            return bytes(delta.SerializeToString())
        whole = discovery_pb2.DiscoveryResponse(
            type_url=type_url, nonce=nonce, version_info=nonce, control_plane=said
        )
        whole.resources.extend(packed for _, packed in found)
        return bytes(whole.SerializeToString())


def is_aside(type_url: str) -> bool:
    """Say whether a type is none of a proxy's."""
    return type_url == DEBUG or type_url.startswith(f"{DEBUG}/") or type_url in CONNECTIONS


def client_config(status: Mapping[str, Any]) -> csds_pb2.ClientConfig:
    """Return how far a proxy has come, in both forms that Istio's command lines have read."""
    config = csds_pb2.ClientConfig()
    config.node.id = str(status["proxy"])
    config.node.metadata.update(
        {
            "CLUSTER_ID": status["cluster_id"],
            "NAMESPACE": debugging.namespace_in(str(status["proxy"])),
            "ISTIO_VERSION": status["istio_version"],
        }
    )
    for type_url, each in status["resources"].items():
        state = _state(each["sent"], each["acked"], each.get("lastError", ""))
        generic = config.generic_xds_configs.add(type_url=type_url, config_status=state)
        if each.get("sentTime"):
            generic.last_updated.FromJsonString(each["sentTime"])
    for short, field in PER_TYPE.items():
        state = _state(status[f"{short}_sent"], status[f"{short}_acked"], "")
        older = config.xds_config.add(status=state)
        getattr(older, field).SetInParent()
    return config


def _state(sent: str, acked: str, error: str) -> int:
    if error:
        return int(csds_pb2.ERROR)
    if not sent:
        return int(csds_pb2.NOT_SENT)
    return int(csds_pb2.SYNCED if sent == acked else csds_pb2.STALE)


def _packed(message: Any) -> any_pb2.Any:  # noqa: ANN401  # a message of any type
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _only(names: tuple[str, ...]) -> str:
    if len(names) != 1:
        raise Refused("INVALID_ARGUMENT", "a debug request names exactly one page or proxy")
    return names[0]
