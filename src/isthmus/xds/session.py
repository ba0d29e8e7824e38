"""One discovery stream without its socket: what is heard and given goes in, actions come out.

What may be said, and what follows, is a table of its own. The driver calls `heard` and `given`
whenever something happens, and `next` whenever the client can take one more message; between two
calls of `next` only the latest state is kept. All that is true of one client is where it stands,
which is nearly always where others stand.

Source: spec section 4.6.
"""

from collections.abc import Mapping
from typing import Final

from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot, TypeUrl
from isthmus.xds import collections, commons, passage, standings, subscription
from isthmus.xds.messages import Close, Flavour, Offer, Report, Request

EVERY_NAME: Final = frozenset({snapshots.EVERYTHING})

_Step = tuple[standings.Standing, Offer | None]


class Session:
    """The talk with one client about all types."""

    __slots__ = ("_at", "_snapshot")

    def __init__(self, flavour: Flavour) -> None:
        self._at = standings.standing(standings.Facts(flavour))
        self._snapshot: Snapshot | None = None

    @property
    def flavour(self) -> Flavour:
        """The form of the protocol that is spoken."""
        return self._at.facts.flavour

    @property
    def is_told(self) -> bool:
        """Whether `next` has nothing to say, for certain."""
        return self._at.facts.is_told

    @property
    def holds_back(self) -> bool:
        """Whether something may be due that is told only after an answer about clusters."""
        return self._at.holds_back

    @property
    def says_more(self) -> bool:
        """Whether the client is about to say more: until then there is nothing for it.

        It has clusters from another stream; which assignments it has was not heard yet. Whoever
        tires of waiting says that it is not.
        """
        return self._at.facts.says_more

    @says_more.setter
    def says_more(self, says_more: bool) -> None:
        if says_more is not self._at.facts.says_more:
            going = self._going()
            going.says_more = says_more
            self._at = going.arrived()

    @property
    def talks(self) -> standings.Talks:
        """How far it has come with each type that the client has asked for."""
        return self._at.talks

    def heard(self, request: Request) -> list[Report | Close]:
        """Take in a request; return what to report, or that the stream must end."""
        report = self.accepted(request)
        if report is not None:
            return [report]
        going = self._going()
        reports = going.heard(request)
        self._at = going.arrived()
        return reports

    def accepted(self, request: Request) -> Report | None:
        """Take in a request that accepts the newest offer, and no more; return what to report.

        Nearly all requests are of this kind. None is for `heard`; then nothing was taken in.
        """
        after = self._at.after(request)
        if after is None:
            return None
        self._at, report = after
        return report

    def given(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]] | None = None
    ) -> None:
        """Take in what the client should have from now on, at a cost proportional to `changed`.

        Args:
            snapshot: What it should have.
            changed: Names that may differ from what was given last; None when it is not known.
        """
        self._snapshot = snapshot
        going = self._going()
        going.given(changed)
        self._at = going.arrived()

    def next(self) -> Offer | None:
        """Return the next message for the client and count it as sent; None when all is told.

        Clients that hear the same are given the same object.
        """
        if self._snapshot is None or self._at.facts.says_more or self._at.facts.is_told:
            return None
        going = self._going()
        offer = going.next()
        self._at = going.arrived()
        return offer

    def next_of(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]]
    ) -> Offer | None:
        """Take in what has changed, as `given`, and return the `next` message.

        Nearly always one type has changed and nothing else waits: then what follows is looked up
        for all who stand alike but the first.
        """
        self._snapshot = snapshot
        if len(changed) != 1:
            return self._given_next(changed)
        ((type_url, names),) = changed.items()
        stamp = snapshot.stamp_of(type_url)
        if not stamp:
            return self._given_next(changed)
        steps: commons.Steps[_Step] = commons.steps_of(stamp)
        key = (self._at, names, stamp)
        step = steps.known(key)
        if step is None:
            going = self._going()
            if not going.is_one_step(type_url):
                return self._given_next(changed)
            offer = going.stepped(type_url, names, stamp)
            step = going.arrived(), offer
            steps.note(key, step, standings.BYTES)
        self._at, offer = step
        return offer

    def _given_next(self, changed: Mapping[TypeUrl, frozenset[str]]) -> Offer | None:
        going = self._going()
        going.given(changed)
        offer = going.next()
        self._at = going.arrived()
        return offer

    def subscribed(self, type_url: TypeUrl) -> frozenset[str]:
        """Return the names that the client wants of a type; `*` stands for all.

        Clients that want the same are said to want the same object.
        """
        talk = self._at.talks.get(type_url)
        return subscription.NOBODY if talk is None else talk.held.names

    def heeds(self, type_url: TypeUrl) -> frozenset[str]:
        """Return the names of a type whose changes matter to the client; `*` stands for all."""
        talk = self._at.talks.get(type_url)
        if talk is None:
            return subscription.NOBODY
        if type_url == snapshots.MEMBERS:
            return collections.all_named(talk.held.names, collections.FIRST_TURN)
        return EVERY_NAME if talk.held.is_on_demand else talk.held.names

    def waiting(self, type_url: TypeUrl) -> int:
        """Return how many offers of a type are remembered until they are answered."""
        talk = self._at.talks.get(type_url)
        return 0 if talk is None else len(talk.waiting)

    def _going(self) -> passage.Passage:
        return passage.Passage(self._at, self._snapshot)
