"""The door to Google's cloud: its own client libraries, and its refusals as errors of ours.

Decides how the libraries speak (REST, the caller's own credentials, addresses that may be
overridden by the variables that `gcloud` obeys) and what each refusal is called. Refuses to know
what is read or changed through it.

The libraries are imported when a connection is made: they are an extra, and large.
"""

import contextlib
import importlib
import ipaddress
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from types import ModuleType, TracebackType
from typing import Any, Final

from typing_extensions import override

from isthmus.base import errors
from isthmus.gke import problems

ENDPOINTS: Final = {
    "container": "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER",
    "compute": "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE",
}
"""The variables in which `gcloud` takes other addresses of the APIs, too."""

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

TIMEOUT_S: Final = 60.0
"""How long one request may take."""

_PERMISSION: Final = re.compile(r"[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+")
_LOOPBACK_NAMES: Final = frozenset({"localhost"})
_LONGEST: Final = 600


class Cloud(contextlib.AbstractContextManager["Cloud"]):
    """Connections to the two APIs, with one person's credentials.

    Attributes:
        compute: The library's module, for its message types.
        container: Likewise.
    """

    def __init__(
        self, credentials: object = None, *, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Connect.

        Args:
            credentials: As the libraries take them; default: the caller's own.
            environment: Where overridden addresses are looked up.

        Raises:
            LibrariesMissing: The extra is not installed (ISM-GKE-001).
            NoCredentials: Nobody is signed in (ISM-GKE-003).
            EndpointRefused: An address would leak credentials (ISM-GKE-010).
        """
        addresses = {api: _address(api, environment) for api in ENDPOINTS}
        self.compute: Any = _library("google.cloud.compute_v1")
        self.container: Any = _library("google.cloud.container_v1")
        self._credentials = credentials or _own_credentials()
        self._addresses = addresses
        self._open: dict[str, Any] = {}

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        for client in self._open.values():
            client.transport.close()
        self._open.clear()

    @property
    def clusters(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for clusters."""
        return self._client("container", lambda: self.container.ClusterManagerClient, "rest")

    @property
    def firewalls(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for firewall rules."""
        return self._client("compute", lambda: self.compute.FirewallsClient)

    @property
    def operations(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for what goes on with firewall rules."""
        return self._client("compute", lambda: self.compute.GlobalOperationsClient)

    @property
    def instances(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for machines."""
        return self._client("compute", lambda: self.compute.InstancesClient)

    @property
    def subnetworks(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for subnetworks."""
        return self._client("compute", lambda: self.compute.SubnetworksClient)

    @property
    def networks(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for networks."""
        return self._client("compute", lambda: self.compute.NetworksClient)

    @property
    def projects(self) -> Any:  # noqa: ANN401  # a library's client
        """The client for projects."""
        return self._client("compute", lambda: self.compute.ProjectsClient)

    def _client(
        self,
        api: str,
        made: Callable[[], Any],
        *transport: str,
    ) -> Any:  # noqa: ANN401  # a library's client
        kind = made()
        name = kind.__name__
        if name not in self._open:
            address = self._addresses[api]
            chosen = {"transport": transport[0]} if transport else {}
            self._open[name] = kind(
                credentials=self._credentials,
                client_options={"api_endpoint": address} if address else None,
                **chosen,
            )
        return self._open[name]


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn whatever the libraries raise into an error of ours that says what was asked.

    Raises:
        NotPermitted: A permission is missing (ISM-GKE-004).
        ApiDisabled: The project does not use the API (ISM-GKE-006).
        CloudFailed: Any other refusal, or no answer (ISM-GKE-007).
    """
    cloud = _library("google.api_core.exceptions")
    auth = _library("google.auth.exceptions")
    web = _library("requests.exceptions")
    try:
        yield
    except cloud.GoogleAPICallError as refusal:
        raise _explained(what, refusal) from refusal
    except auth.GoogleAuthError as refusal:
        raise problems.NoCredentials(
            f"{what}: no valid credentials",
            detail=_short(str(refusal)),
            hint="gcloud auth application-default login",
        ) from refusal
    except (cloud.GoogleAPIError, web.RequestException, OSError) as refusal:
        raise problems.CloudFailed(f"{what}: no answer", detail=_short(str(refusal))) from refusal


def is_missing(error: errors.IsthmusError) -> bool:
    """Tell whether a refusal says that there is no such thing."""
    return _status(error) == HTTPStatus.NOT_FOUND


def is_conflict(error: errors.IsthmusError) -> bool:
    """Tell whether a refusal says that something has changed, or exists, meanwhile."""
    return _status(error) in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}


def _status(error: errors.IsthmusError) -> int:
    return int(getattr(error.__cause__, "code", 0) or 0)


def _explained(what: str, refusal: Any) -> errors.IsthmusError:  # noqa: ANN401  # from a library
    said = _short(_told(str(refusal.message)))
    reason = str(refusal.reason or "")
    if refusal.code == HTTPStatus.FORBIDDEN and _is_disabled(refusal, reason):
        details = refusal.metadata or {}
        service = details.get("service") or _service_in(said)
        project = str(details.get("consumer") or "").removeprefix("projects/")
        return problems.ApiDisabled(
            f"{what}: the API is not enabled",
            detail=said,
            hint=f"gcloud services enable {service}" + f" --project={project}" * bool(project),
        )
    if refusal.code == HTTPStatus.FORBIDDEN:
        missing = _PERMISSION.findall(said)
        named = f" `{missing[0]}`" if missing else ""
        return problems.NotPermitted(
            f"{what}: permission{named} is missing",
            detail=said,
            hint="docs/howto/gke.md lists what this command needs, and in which project",
        )
    if refusal.code == HTTPStatus.UNAUTHORIZED:
        return problems.NoCredentials(
            f"{what}: the credentials are not accepted",
            detail=said,
            hint="gcloud auth application-default login",
        )
    return problems.CloudFailed(f"{what}: refused", detail=said)


def _is_disabled(refusal: Any, reason: str) -> bool:  # noqa: ANN401  # from a library
    reasons = {reason, *(str(each.get("reason", "")) for each in refusal.errors or ())}
    return bool(reasons & {"SERVICE_DISABLED", "accessNotConfigured"})


def _service_in(said: str) -> str:
    return "container.googleapis.com" if "Kubernetes" in said else "compute.googleapis.com"


def _told(message: str) -> str:
    """Return a refusal without the request that the library puts before it."""
    _, separator, said = message.partition(": ")
    return said if separator and "://" in message[: message.find(": ")] else message


def _short(text: str) -> str:
    return text[:_LONGEST]


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise problems.LibrariesMissing(
            "Google's client libraries are not installed",
            detail=str(error),
            hint="pip install 'isthmus[gke]'",
        ) from error


def _own_credentials() -> object:
    auth: Any = _library("google.auth")
    unknown = _library("google.auth.exceptions").GoogleAuthError
    try:
        credentials, _ = auth.default(scopes=list(SCOPES))
    except unknown as error:
        raise problems.NoCredentials(
            "nobody is signed in to Google's cloud here",
            detail=_short(str(error).splitlines()[0]),
            hint="gcloud auth application-default login",
        ) from error
    return credentials


def _address(api: str, environment: Mapping[str, str]) -> str:
    given = environment.get(ENDPOINTS[api], "").rstrip("/")
    if not given:
        return ""
    parts = urllib.parse.urlsplit(given)
    host = parts.hostname or ""
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        # `gcloud` wants the version in the address of one API and not of the other.
        return f"{parts.scheme}://{parts.netloc}"
    raise problems.EndpointRefused(
        f"`{ENDPOINTS[api]}` is no https address: {given}",
        hint="credentials would travel readably; http is for this machine only",
    )


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
