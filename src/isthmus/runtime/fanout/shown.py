"""How far proxies have come, as workers tell it for the pages of the control plane."""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from isthmus.base import clock
from isthmus.resources.snapshot import TypeUrl
from isthmus.runtime.fanout import messages
from isthmus.wire import callers, nodes, streams

AT_ONCE: Final = 128
"""Streams in one message."""


class Known(Protocol):
    """What the control plane knows of a stream."""

    caller: callers.Caller
    node: nodes.Node


def told(
    found: Iterable[tuple[int, streams.StreamStatus]], number: int
) -> Iterator[messages.Statuses]:
    """Cut the statuses of streams into messages; each has the number of its proxy."""
    rows, lists = list[messages.StreamShown](), _Lists()
    for one, status in found:
        rows.append(_stream(one, status, lists))
        if len(rows) >= AT_ONCE:
            yield messages.Statuses(number, tuple(rows), tuple(lists.names))
            rows, lists = [], _Lists()
    yield messages.Statuses(number, tuple(rows), tuple(lists.names))


def statuses(
    told: Iterable[messages.Statuses], known: Mapping[int, Known]
) -> Iterator[streams.StreamStatus]:
    """Return the statuses that were told, of streams that are known."""
    for part in told:
        names = [frozenset(each) for each in part.names]
        for row in part.streams:
            one = known.get(row.number)
            if one is not None:
                yield _status(row, one, names)


class _Lists:
    """Lists of names, each once."""

    def __init__(self) -> None:
        self.names: list[tuple[str, ...]] = []
        self._known: dict[frozenset[str], int] = {}

    def number(self, names: frozenset[str]) -> int:
        known = self._known.get(names)
        if known is None:
            known = self._known[names] = len(self.names)
            self.names.append(tuple(names))
        return known


def _stream(number: int, status: streams.StreamStatus, lists: _Lists) -> messages.StreamShown:
    return messages.StreamShown(
        number,
        status.id,
        status.peer,
        status.connected_at.timestamp(),
        status.flavour,
        tuple(
            messages.TypeShown(
                kind,
                each.sent,
                each.acked,
                each.version,
                _seconds(each.sent_at),
                _seconds(each.answered_at),
                tuple(each.refused),
                each.error,
                lists.number(status.watches[kind]),
            )
            for kind, each in status.types.items()
        ),
    )


def _status(
    row: messages.StreamShown, known: Known, names: list[frozenset[str]]
) -> streams.StreamStatus:
    types = {
        TypeUrl(each.type_url): streams.TypeStatus(
            sent=each.sent,
            acked=each.acked,
            version=each.version,
            sent_at=_instant(each.sent_at),
            answered_at=_instant(each.answered_at),
            refused=frozenset(each.refused),
            error=each.error,
        )
        for each in row.types
    }
    return streams.StreamStatus(
        id=row.id,
        node=known.node,
        caller=known.caller,
        peer=row.peer,
        flavour=row.flavour,
        connected_at=datetime.datetime.fromtimestamp(row.connected_at, datetime.UTC),
        types=types,
        watches={TypeUrl(each.type_url): names[each.watched] for each in row.types},
    )


def _seconds(at: clock.Instant | None) -> float | None:
    return None if at is None else at.timestamp()


def _instant(seconds: float | None) -> clock.Instant | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
