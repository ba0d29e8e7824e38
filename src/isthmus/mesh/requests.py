"""What a route does with requests, besides choosing where they go.

Durations are in seconds. Patterns are `exact:x`, `prefix:x` or `regex:x`, in RE2's syntax.

Source: spec section 8.2; Istio's API for VirtualService.
"""

from dataclasses import dataclass

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Which headers of a message are replaced, added and removed; names are in lower case."""

    replaced: Pairs = ()
    added: Pairs = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Headers:
    """Changes on the way there and on the way back.

    Attributes:
        host: What the request's host becomes; empty keeps it.
    """

    request: HeaderChanges = HeaderChanges()
    response: HeaderChanges = HeaderChanges()
    host: str = ""


UNCHANGED = Headers()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the matched part of the path and the host become; empty keeps them.

    Attributes:
        whole_path: The pattern and the replacement of a rewrite by pattern.
    """

    path: str = ""
    host: str = ""
    whole_path: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer that sends clients elsewhere; empty parts stay as they were asked.

    Attributes:
        prefix: Replaces the matched prefix; only without `path`.
    """

    status: int = 301
    path: str = ""
    prefix: str = ""
    host: str = ""
    scheme: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered at once."""

    status: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried again; 0 attempts: never.

    Attributes:
        on: Envoy's conditions and status codes; empty takes the mesh's.
        avoids_tried: Whether endpoints that failed are put off.
    """

    attempts: int
    per_try_timeout_s: float = 0.0
    on: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    base_interval_s: float = 0.0
    avoids_tried: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Which share of requests, in millionths, is made to wait or answered with an error."""

    delay_s: float = 0.0
    delayed: int = 0
    status: int = 0
    aborted: int = 0


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other sites may call."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_s: float = 0.0
    credentials: bool | None = None


@dataclass(frozen=True, slots=True)
class Treatment:
    """All that a route does with requests and answers."""

    headers: Headers = UNCHANGED
    rewrite: Rewrite = Rewrite()
    redirect: Redirect | None = None
    answer: Answer | None = None
    retries: Retries | None = None
    fault: Fault | None = None
    cors: Cors | None = None


PLAIN = Treatment()
