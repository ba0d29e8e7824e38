"""Errors in the words of the Kubernetes API: every one becomes a Status object.

    ApiError
      bad_request 400, unauthorized 401, forbidden 403, not_found 404, no_method 405,
      not_acceptable 406, already_exists/conflict 409, expired 410, too_large 413,
      unsupported 415, invalid 422, too_many 429, internal 500

It decides only the wording; who refuses what lies elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.lab.apiserver.values import Obj


@dataclass(frozen=True, slots=True)
class Cause:
    """One field and what is wrong with it.

    Attributes:
        reason: Such as `FieldValueInvalid`.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class ApiError(Exception):
    """A refusal that the client gets as a Status.

    Attributes:
        code: The HTTP status code.
        reason: The machine-readable word, such as `NotFound`.
        details: The Status' details, may be empty.
        more: Further parts of the Status, such as a list's metadata.
    """

    def __init__(self, code: int, reason: str, message: str, *, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Obj = details or {}
        self.more: Obj = {}

    def status(self) -> Obj:
        """Return the Status object."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return {**status, **self.more}


def bad_request(message: str) -> ApiError:
    """Say that the request makes no sense."""
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    """Say that nobody vouches for the caller."""
    return ApiError(401, "Unauthorized", message)


def forbidden(message: str, *, resource: str = "", name: str = "", group: str = "") -> ApiError:
    """Say that the caller may not, or that admission refuses."""
    return ApiError(403, "Forbidden", message, details=_details(name, group, resource))


def not_found(resource: str, *, name: str, group: str = "") -> ApiError:
    """Say that there is no such object."""
    full = f"{resource}.{group}" if group else resource
    return ApiError(
        404, "NotFound", f'{full} "{name}" not found', details=_details(name, group, resource)
    )


def no_resource() -> ApiError:
    """Say that nothing is served at a path."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def no_method() -> ApiError:
    """Say that the path does not take this method."""
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )


def already_exists(resource: str, *, name: str, group: str = "") -> ApiError:
    """Say that the name is taken."""
    full = f"{resource}.{group}" if group else resource
    return ApiError(
        409,
        "AlreadyExists",
        f'{full} "{name}" already exists',
        details=_details(name, group, resource),
    )


def conflict(resource: str, *, name: str, why: str = "", group: str = "") -> ApiError:
    """Say that the object has changed meanwhile."""
    full = f"{resource}.{group}" if group else resource
    reason = why or (
        "the object has been modified; please apply your changes to the latest version"
        " and try again"
    )
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {full} "{name}": {reason}',
        details=_details(name, group, resource),
    )


def expired(message: str = "The resourceVersion for the provided watch is too old.") -> ApiError:
    """Say that the history asked for is gone."""
    return ApiError(410, "Expired", message)


def too_large(limit_bytes: int) -> ApiError:
    """Say that the body is too big."""
    return ApiError(
        413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit_bytes}"
    )


def unsupported(media_type: str, *, known: Iterable[str]) -> ApiError:
    """Say that a body's media type is not understood."""
    return ApiError(
        415,
        "UnsupportedMediaType",
        f'the body of the request was in an unknown format "{media_type}"'
        f" - accepted media types include: {', '.join(known)}",
    )


def invalid(kind: str, *, name: str, causes: Iterable[Cause], group: str = "") -> ApiError:
    """Say which fields are wrong."""
    found = tuple(causes)
    listed = [f"{cause.field}: {cause.message}" for cause in found]
    text = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    full = f"{kind}.{group}" if group else kind
    details = _details(name, group, kind)
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in found
    ]
    return ApiError(422, "Invalid", f'{full} "{name}" is invalid: {text}', details=details)


def too_many(message: str) -> ApiError:
    """Say that the request must be repeated later."""
    return ApiError(429, "TooManyRequests", message)


def internal(message: str) -> ApiError:
    """Say that the fault is here."""
    return ApiError(500, "InternalError", message)


def _details(name: str, group: str, kind: str) -> Obj:
    pairs = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in pairs.items() if value}
