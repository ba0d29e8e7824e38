"""Conversations with a discovery session, written down as they are read aloud.

    play(
        session.Session(Flavour.DELTA),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"})),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
    )

Every `said` names all that was said since the last one, and nothing may be left unsaid at the
end. A conversation that goes another way fails with both transcripts as a diff. Nonces never
appear: an answer refers to the newest offer of its type, or to an earlier one by counting back.
"""

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from isthmus.resources import snapshot
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour

World = Mapping[TypeUrl, Mapping[str, str]]
"""By type and name: the version of each resource; its body is that version."""

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Spoken:
    """A request, before it is known which form of the protocol carries it.

    Attributes:
        answers: Which offer of the type it answers: 1 is the newest, 2 the one before; 0 none.
        nonce: A nonce to give instead.
    """

    type_url: TypeUrl
    names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    has: Mapping[str, str] = field(default_factory=dict)
    answers: int = 0
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """The client says something."""

    spoken: Spoken


@dataclass(frozen=True, slots=True)
class Given:
    """The client should have something else from now on."""

    world: World
    is_difference_known: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """The session says all of this, in this order."""

    lines: tuple[str, ...]


Step = Heard | Given | Said


def heard(spoken: Spoken) -> Heard:
    """Let the client say something."""
    return Heard(spoken)


def given(world: World, *, is_difference_known: bool = True) -> Given:
    """Let the client have `world` from now on."""
    return Given(world, is_difference_known)


def said(*lines: str) -> Said:
    """Expect all of this to have been said since the last `said`."""
    return Said(lines)


def ask(type_url: TypeUrl, *names: str, has: Mapping[str, str] = NOTHING) -> Spoken:
    """Say: I want these names; or, without any, all."""
    return Spoken(type_url, names, has=has)


def drop(type_url: TypeUrl, *names: str) -> Spoken:
    """Say, in delta: I no longer want these names."""
    return Spoken(type_url, dropped=names)


def accept(type_url: TypeUrl, *names: str, back: int = 1) -> Spoken:
    """Say: I use your offer. In state of the world, `names` are all that is wanted."""
    return Spoken(type_url, names, answers=back)


def refuse(type_url: TypeUrl, message: str, *names: str, back: int = 1) -> Spoken:
    """Say: I do not use your offer."""
    return Spoken(type_url, names, answers=back, error=message)


def answer_strange(type_url: TypeUrl, *names: str, error: str | None = None) -> Spoken:
    """Answer an offer that was never made on this stream."""
    return Spoken(type_url, names, nonce="another-stream", error=error)


def offer(
    type_url: TypeUrl, versions: Mapping[str, str] = NOTHING, *, removed: tuple[str, ...] = ()
) -> str:
    """Expect an offer of exactly these resources."""
    shown = (f"{name}={version}" for name, version in sorted(versions.items()))
    return " ".join(["offer", _short(type_url), *shown, *(f"-{name}" for name in removed)])


def accepted(type_url: TypeUrl) -> str:
    """Expect a report that an offer is in use."""
    return f"accepted {_short(type_url)}"


def refused(type_url: TypeUrl, message: str, *names: str) -> str:
    """Expect a report that an offer was refused because of `names`."""
    return " ".join(["refused", _short(type_url), *names, f"({message})"])


def closed(code: str) -> str:
    """Expect the stream to end."""
    return f"close {code}"


def snapshot_of(world: World) -> Snapshot:
    """Return the snapshot that `world` stands for."""
    return Snapshot(
        {
            type_url: {
                name: Resource(type_url, name, version, version.encode())
                for name, version in versions.items()
            }
            for type_url, versions in world.items()
        },
        stamp_of=lambda kind: (_edition(kind, tuple(sorted(world.get(kind, NOTHING).items()))),),
    )


@functools.lru_cache(maxsize=1024)
def _edition(_: TypeUrl, __: tuple[tuple[str, str], ...]) -> snapshot.Edition:
    """Return the one edition of these versions."""
    return snapshot.Edition()


def difference(old: World, new: World) -> dict[TypeUrl, frozenset[str]]:
    """Return the names whose version differs, by type."""
    found = {
        type_url: frozenset(
            name
            for name in {*old.get(type_url, NOTHING), *new.get(type_url, NOTHING)}
            if old.get(type_url, NOTHING).get(name) != new.get(type_url, NOTHING).get(name)
        )
        for type_url in {*old, *new}
    }
    return {type_url: names for type_url, names in found.items() if names}


def play(held: session.Session, *steps: Step) -> None:
    """Hold the conversation; fail with a diff where it goes another way."""
    stage = _Stage(held)
    for step in (*steps, Said(())):
        match step:
            case Heard(spoken):
                stage.hear(spoken)
            case Given(world, is_difference_known):
                stage.give(world, is_difference_known=is_difference_known)
            case Said(lines):
                stage.listen(lines)


@dataclass(slots=True)
class _Stage:
    held: session.Session
    world: World = field(default_factory=dict)
    nonces: dict[TypeUrl, list[str]] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    actual: list[str] = field(default_factory=list)

    def hear(self, spoken: Spoken) -> None:
        self._both(f"> {spoken.type_url and _short(spoken.type_url)} {_words(spoken)}")
        for action in self.held.heard(self._request(spoken)):
            self.unsaid.append(_line(action))

    def give(self, world: World, *, is_difference_known: bool) -> None:
        self._both(f"= { ({_short(each): dict(names) for each, names in world.items()}) }")
        changed = difference(self.world, world) if is_difference_known else None
        self.world = world
        self.held.given(snapshot_of(world), changed)

    def listen(self, lines: tuple[str, ...]) -> None:
        while made := self.held.next():
            self.nonces.setdefault(made.type_url, []).append(made.nonce)
            self.unsaid.append(_line(made))
        self.expected.extend(f"< {line}" for line in lines)
        self.actual.extend(f"< {line}" for line in self.unsaid)
        if tuple(self.unsaid) != lines:
            shown = difflib.ndiff(self.expected, self.actual)
            raise AssertionError("the conversation went another way:\n" + "\n".join(shown))
        self.unsaid.clear()

    def _both(self, line: str) -> None:
        self.expected.append(line)
        self.actual.append(line)

    def _request(self, spoken: Spoken) -> messages.Request:
        nonce = spoken.nonce
        if spoken.answers:
            nonce = self.nonces[spoken.type_url][-spoken.answers]
        is_delta = self.held.flavour is Flavour.DELTA
        return messages.Request(
            spoken.type_url,
            names=() if is_delta else spoken.names,
            subscribe=spoken.names if is_delta else (),
            unsubscribe=spoken.dropped,
            initial_versions=spoken.has,
            nonce=nonce,
            error=spoken.error,
        )


def _line(action: messages.Action) -> str:
    match action:
        case messages.Offer():
            versions = {each.name: each.version for each in action.resources}
            return offer(action.type_url, versions, removed=action.removed)
        case messages.Report(outcome):
            if isinstance(outcome, messages.Refused):
                return refused(outcome.type_url, outcome.message, *outcome.names)
            return accepted(outcome.type_url)
        case messages.Close():
            return closed(action.code)


def _words(spoken: Spoken) -> str:
    return " ".join([*spoken.names, *(f"-{name}" for name in spoken.dropped), spoken.error or ""])


def _short(type_url: TypeUrl) -> str:
    return type_url.removeprefix(snapshot.PREFIX).rpartition(".")[2]
