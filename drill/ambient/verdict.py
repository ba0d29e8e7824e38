"""Judges what a drill in ambient mode has seen, from the records alone.

    Record → violations, costs of each step

The rules of counting: a request is lost when it was not answered with 200, whatever the reason,
since there is always a cluster that can answer. It is excused when it was on its way at the moment
in which a process was killed that requests pass, or on an open connection at the moment in which one
ended that was asked to, since nobody there reads what is in a tunnel; these are counted apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from drill.ambient import records

FAILOVER_S: Final = 5.0
"""New connections reach who should answer within this, and no request takes longer."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    at: float
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step cost those who called meanwhile.

    Attributes:
        in_flight: Requests that were on their way through a process when it was killed.
        slowest_s: The longest time to an answer.
        first_s: When the right cluster answered a new connection first, of the last such caller.
        moved_s: When it answered all of them; None when it is no matter who answers.
    """

    requests: int
    lost: int
    in_flight: int
    slowest_s: float
    first_s: float | None
    moved_s: float | None

    @property
    def holds(self) -> bool:
        """Whether what is promised of requests was kept."""
        in_time = self.slowest_s <= FAILOVER_S and (self.moved_s or 0.0) <= FAILOVER_S
        return not self.lost and in_time


def cost(record: records.Record, step: records.Step) -> Cost:
    """Return what a step cost."""
    requests = record.of(step)
    lost = [each for each in requests if each.is_lost]
    excused = sum(is_excused(record, each) for each in lost)
    moves = [_move(record, step, caller) for caller in step.places]
    return Cost(
        requests=len(requests),
        lost=len(lost) - excused,
        in_flight=excused,
        slowest_s=max((each.took_s for each in requests if not each.is_lost), default=0.0),
        first_s=max((first for first, _ in moves), default=None),
        moved_s=max((last for _, last in moves), default=None),
    )


def is_excused(record: records.Record, request: records.Request) -> bool:
    """Whether a request was on its way through a process when that ended."""
    return any(
        _was_on_its_way(request, step.killed)
        or (not request.fresh and _was_on_its_way(request, step.endings))
        for step in record.steps
    )


def _was_on_its_way(request: records.Request, spans: list[tuple[float, float]]) -> bool:
    ended = request.at + request.took_s
    return any(request.at <= until and ended >= since for since, until in spans)


def _move(record: records.Record, step: records.Step, caller: str) -> tuple[float, float]:
    """Return when the right clusters answered a caller's new connections: the first, and all."""
    since = step.since if step.since is not None else step.began
    answered = [
        each
        for each in record.of(step)
        if each.client == caller and each.fresh and not each.is_lost and each.at >= since
    ]
    right = [each for each in answered if record.place(each) in step.places[caller]]
    first = min((each.at + each.took_s for each in right), default=float("inf"))
    wrong = [each.at for each in answered if record.place(each) not in step.places[caller]]
    after = [each for each in right if each.at > max(wrong, default=0.0)]
    last = min((each.at + each.took_s for each in after), default=float("inf"))
    return first - since, last - since


def violations(record: records.Record) -> list[Violation]:
    """Return everything that a drill must not see, in the order in which it happened."""
    found = [
        *_lost(record),
        *_late(record),
        *_readable(record),
        *_counted(record),
        *_ineffective(record),
        *(Violation(at, "drill", text) for at, text in record.notes),
    ]
    return sorted(found, key=lambda each: each.at)


def _lost(record: records.Record) -> Iterator[Violation]:
    for request in record.requests:
        if request.is_lost and not is_excused(record, request):
            text = (
                f"{request.client}: status {request.status} after {request.took_s:.2f} s"
                f"{'' if request.fresh else ', on an open connection'}: "
                f"{request.body.strip()[:160]}; during {_during(record, request.at)}"
            )
            yield Violation(request.at, "lost request", text)


def _late(record: records.Record) -> Iterator[Violation]:
    for request in record.requests:
        if not request.is_lost and request.took_s > FAILOVER_S:
            text = f"{request.client}: {request.took_s:.1f} s; during {_during(record, request.at)}"
            yield Violation(request.at, "slow request", text)
    for step in record.steps:
        for caller in step.places:
            _, moved_s = _move(record, step, caller)
            if moved_s > FAILOVER_S:
                places = " or ".join(sorted(step.places[caller]))
                text = f"{step.text}: {places} answers {caller} after {moved_s:.1f} s"
                yield Violation(step.began, "failover", text)


def _during(record: records.Record, moment: float) -> str:
    found = [
        f"{each.text} (for {moment - each.began:.1f} s)"
        for each in record.steps
        if each.covers(moment)
    ]
    return ", ".join(found) or "nothing"


def _readable(record: records.Record) -> Iterator[Violation]:
    for step in record.steps:
        for wire in step.wires:
            for fault in wire.faults:
                yield Violation(step.began, "not TLS", f"{step.text}: {wire.name}: {fault}")


def _counted(record: records.Record) -> Iterator[Violation]:
    for client, sent in record.sent.items():
        answered = sum(each.client == client for each in record.requests)
        if answered != sent:
            text = f"{client}: {sent} sent, {answered} accounted for"
            yield Violation(record.ended, "accounting", text)
    for request in record.requests:
        if not request.is_lost and not record.place(request):
            yield Violation(request.at, "accounting", f"nobody knows who said {request.body!r}")


def _ineffective(record: records.Record) -> Iterator[Violation]:
    """Doubt the drill itself: without steps, traffic or frames it proves nothing."""
    if not record.steps:
        yield Violation(record.began, "drill", "nothing was done")
    for client in {each.client for each in record.requests} ^ record.sent.keys():
        yield Violation(record.ended, "drill", f"{client}: nobody knows what was sent")
    for step in record.steps:
        if step.ended is None:
            yield Violation(step.began, "recovery", f"{step.text}: was not as it should be in time")
        elif not record.of(step):
            yield Violation(step.began, "drill", f"{step.text}: nobody called meanwhile")
        for wire in step.wires:
            if wire.dropped:
                text = f"{step.text}: {wire.name}: {wire.dropped} frames were not seen"
                yield Violation(step.began, "drill", text)
