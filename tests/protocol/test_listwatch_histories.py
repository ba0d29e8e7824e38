"""For every history of a server, what is cached equals the server once it rests."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.kube import listwatch
from isthmus.kube.listwatch import Bookmark, Changed, Deleted, Ended, Failed, List, ListWatch, Page

PAGE = 2


@dataclass
class Server:
    """A server with versions, a log that is compacted, and a lagging replica."""

    objects: dict[str, int] = field(default_factory=dict)
    version: int = 1
    log: list[tuple[int, str, int | None]] = field(default_factory=list)
    compacted: int = 0
    states: dict[int, dict[str, int]] = field(default_factory=lambda: {1: {}})

    def write(self, key: str, value: int | None) -> None:
        if value is None and key not in self.objects:
            return
        self.version += 1
        if value is None:
            del self.objects[key]
        else:
            self.objects[key] = value
        self.log.append((self.version, key, value))
        self.states[self.version] = dict(self.objects)

    def compact(self) -> None:
        self.compacted = self.version

    def list(self, ask: List, *, stale: bool) -> listwatch.Heard[str, int]:
        if ask.token:
            at, start = (int(part) for part in ask.token.split("/"))
            if at < self.compacted:
                return Failed("expired")
        else:
            at, start = self.version, 0
            if stale and ask.not_older_than:
                # A lagging replica may answer anything that is not older than asked for.
                at = int(ask.not_older_than)
                if at not in self.states:
                    return Failed("ahead")
        items = sorted(self.states[at].items())
        end = start + PAGE if ask.limit else len(items)
        token = f"{at}/{end}" if end < len(items) else ""
        return Page(dict(items[start:end]), str(at), token)

    def watch(self, version: str, *, most: int) -> "list[listwatch.Heard[str, int]]":
        if int(version) < self.compacted:
            return [Failed("expired")]
        events: list[listwatch.Heard[str, int]] = [
            Deleted(key, str(at)) if value is None else Changed(key, value, str(at))
            for at, key, value in self.log
            if at > int(version)
        ]
        return events[:most]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abcdef"), st.integers(0, 2)),
        st.tuples(st.just("delete"), st.sampled_from("abcdef")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("talk"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("repeat")),
        st.tuples(st.just("bookmark")),
        st.tuples(st.just("refuse"), st.sampled_from(["other", "expired"])),
        st.tuples(st.just("cut")),
    ),
    max_size=60,
)


class Follower:
    """Follows a server one exchange at a time, and keeps a copy made from batches alone."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.state: ListWatch[str, int] = ListWatch()
        self.ask: List | listwatch.Watch = self.state.begin()
        self.copy: dict[str, int] = {}
        self.last: listwatch.Heard[str, int] | None = None

    def hear(self, what: "listwatch.Heard[str, int]") -> None:
        answer = self.state.heard(what, spread=0.5)
        for key, value in answer.changes.items():
            assert self.copy.get(key) != value, "a batch holds only what differs"
            if value is None:
                del self.copy[key]
            else:
                self.copy[key] = value
        if answer.ask is not None:
            self.ask = answer.ask
        self.last = what

    def talk(self, most: int = 100, *, stale: bool = False) -> None:
        if isinstance(self.ask, List):
            self.hear(self.server.list(self.ask, stale=stale))
            return
        for event in self.server.watch(self._version(), most=most):
            self.hear(event)
        if not isinstance(self.ask, List):
            self.hear(Ended(0.1))

    def _version(self) -> str:
        assert isinstance(self.ask, listwatch.Watch)
        return self.ask.version


def play(follower: Follower, step: tuple) -> None:
    watching = isinstance(follower.ask, listwatch.Watch)
    match step:
        case ("write", key, value):
            follower.server.write(key, value)
        case ("delete", key):
            follower.server.write(key, None)
        case ("compact",):
            follower.server.compact()
        case ("talk", most, stale):
            follower.talk(most, stale=stale)
        case ("repeat",) if watching and isinstance(follower.last, Changed | Deleted):
            follower.hear(follower.last)
        case ("bookmark",) if watching and not follower.server.watch(follower._version(), most=1):
            follower.hear(Bookmark(str(follower.server.version)))
        case ("refuse", why):
            follower.hear(Failed(why))
        case ("cut",) if watching:
            follower.hear(Ended(0.0))


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_at_rest_the_cache_equals_the_server_and_so_does_what_batches_told(steps):
    server = Server()
    follower = Follower(server)
    for step in steps:
        play(follower, step)

    for _ in range(20):
        follower.talk()

    assert follower.state.cache == server.objects
    assert follower.copy == server.objects


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_an_object_that_was_never_deleted_never_vanishes(steps):
    server = Server()
    server.write("kept", 1)
    follower = Follower(server)
    follower.talk()
    for step in steps:
        play(follower, step)

        assert follower.copy.get("kept") == 1
