"""What goes wrong between us and one API server, as data.

IsthmusError
├── ApiError             the API server refused a request
├── Unreachable          no answer: address, connection, TLS, time
├── KubeconfigBroken     the user's own kubeconfig cannot be used
├── KubeconfigRefused    a kubeconfig of foreign origin asks for what it may not
├── PluginFailed         a credential plugin gave no credential
├── KindUnknown          the API server does not serve an object's kind
├── FieldsOwnedElsewhere an apply would take fields from another writer
├── WaitEnded            something did not become ready in time
├── NotInCluster         no service account is mounted here
└── ListEndless          an API server pages a list for ever
"""

from typing_extensions import override

from isthmus.base import errors

NOT_FOUND = 404
CONFLICT = 409
GONE = 410


class ApiError(errors.IsthmusError):
    """The API server refused a request.

    Attributes:
        status: The HTTP status.
        reason: Kubernetes' own word for the refusal, such as `AlreadyExists`.
        message: The API server's own sentence.
        details: The `details` of the API server's answer.
    """

    code = "ISM-KUBE-001"

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        request: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(
            f"the API server refused: {message}" if message else f"the API server said {status}",
            detail="\n".join(part for part in (request, f"{status} {reason}".strip()) if part),
            hint=_HINTS.get(status, ""),
        )
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    @property
    def is_missing(self) -> bool:
        """Whether the object, or its kind, does not exist."""
        return self.status == NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """Whether somebody else wrote first, or the object exists already."""
        return self.status == CONFLICT

    @property
    def is_expired(self) -> bool:
        """Whether the version that was asked for is no longer kept."""
        return self.status == GONE or self.reason == "Expired"


_HINTS = {
    401: "the credential is wrong or has expired; log in again or make a new one",
    403: "the credential lacks a right that its roles must grant",
}


class Unreachable(errors.IsthmusError):
    """No answer came: address, connection, TLS or time."""

    code = "ISM-KUBE-002"


class KubeconfigBroken(errors.IsthmusError):
    """The user's own kubeconfig cannot be used."""

    code = "ISM-KUBE-003"


class KubeconfigRefused(errors.IsthmusError):
    """A kubeconfig of foreign origin asks for what it may not."""

    code = "ISM-KUBE-004"

    @override
    def __str__(self) -> str:
        return self.happened


class PluginFailed(errors.IsthmusError):
    """A credential plugin gave no credential."""

    code = "ISM-KUBE-005"


class KindUnknown(errors.IsthmusError):
    """The API server does not serve an object's kind."""

    code = "ISM-KUBE-006"


class FieldsOwnedElsewhere(errors.IsthmusError):
    """An apply would take fields from another writer."""

    code = "ISM-KUBE-007"


class WaitEnded(errors.IsthmusError):
    """Something did not become ready in time."""

    code = "ISM-KUBE-008"


class NotInCluster(errors.IsthmusError):
    """No service account is mounted here."""

    code = "ISM-KUBE-010"


class ListEndless(errors.IsthmusError):
    """An API server pages a list for ever."""

    code = "ISM-KUBE-011"


UNDECODABLE = "ISM-KUBE-009"
"""Code of the finding that one object could not be read."""
