"""What a drill in ambient mode has seen, as values: requests, steps, wires.

Times are seconds since 1970; all programs of a drill run on one machine and share its clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the client that sent it says.

    Attributes:
        client: The cluster that it came from.
        status: HTTP's; 0 when there was no answer.
        fresh: Whether it had a connection of its own, and so could go where it should.
    """

    client: str
    at: float
    took_s: float
    status: int
    body: str = ""
    fresh: bool = True

    @property
    def is_lost(self) -> bool:
        """Whether it was not answered as it should be."""
        return self.status != 200  # HTTP's OK

    @property
    def instance(self) -> str:
        """The pod that answered; empty when it did not say."""
        return self.body.partition("instance: ")[2].strip()


@dataclass(frozen=True, slots=True)
class Wire:
    """What was heard on a wire while something was done.

    Attributes:
        dropped: Frames that did not come to who listened.
    """

    name: str
    connections: int
    size_bytes: int
    faults: tuple[str, ...] = ()
    dropped: int = 0


@dataclass(slots=True)
class Step:
    """Something that was done to the mesh, and the time until the next.

    Attributes:
        name: What it is called, such as `gateway-killed`.
        text: What was done, for a person.
        since: From when on the right clusters should answer: the order, or a pod that is ready.
        places: Which clusters should then answer whose requests; for no caller when it is no matter.
        killed: From when to when processes were killed that requests pass.
        endings: From when to when such processes ended that were asked to.
        ended: None when all was not well again.
    """

    name: str
    text: str
    began: float
    since: float | None = None
    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    killed: list[tuple[float, float]] = field(default_factory=list)
    endings: list[tuple[float, float]] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    ended: float | None = None

    def covers(self, moment: float) -> bool:
        """Whether it was in progress."""
        return self.began <= moment and (self.ended is None or moment < self.ended)


@dataclass(slots=True)
class Record:
    """Everything that was seen in one drill.

    Attributes:
        rate: Requests a second of each client.
        instances: The cluster of each pod that was ever seen to answer.
        sent: How many requests each client has sent.
        notes: What went wrong in the drill itself, with the moment.
    """

    rate: float
    began: float
    requests: list[Request] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    instances: dict[str, str] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    ended: float = 0.0

    def of(self, step: Step) -> list[Request]:
        """Return the requests that were sent during a step."""
        return [each for each in self.requests if step.covers(each.at)]

    def place(self, request: Request) -> str:
        """Return the cluster that answered; empty when nobody knows."""
        return self.instances.get(request.instance, "")
