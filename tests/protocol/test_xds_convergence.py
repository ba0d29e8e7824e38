"""Whatever happens in whatever order, a client ends with what it should have.

The model client talks over two wires that deliver in order but as late as they like, changes its
mind, and refuses what ends in `!`, as Envoy does: it keeps what it had, and says which resource
was odd. A cluster that has changed warms until its endpoints are told after it, and nothing of that
is said when the stream breaks and the client opens another one, to a control plane that knows
nothing of it. Both forms of the protocol live through the same history.
"""

from collections import defaultdict, deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, ROUTES, Snapshot
from isthmus.testing import playbook
from isthmus.xds import session
from isthmus.xds.messages import Flavour, Request

TYPES = (CLUSTERS, ENDPOINTS, ROUTES)
NAMES = ("a", "b", "c")
VERSIONS = ("1", "2", "3!")


class Client:
    def __init__(self, flavour):
        self.flavour = flavour
        self.session = session.Session(flavour)
        self.world = {}
        self.cache = defaultdict(dict)
        self.wanted = {}
        self.nonces = {}
        self.warming = set()
        self.to_server = deque()
        self.to_client = deque()

    def subscribe(self, type_url, names):
        old = self.wanted.get(type_url, frozenset())
        if type_url == CLUSTERS:
            names = frozenset("*")
        self.wanted[type_url] = names
        dropped = old - names
        for name in dropped:
            self.cache[type_url].pop(name, None)
        if self.flavour is Flavour.DELTA:
            self._send(type_url, names - old, dropped)
        elif names or old:
            self._send(type_url, names, (), nonce=self.nonces.get(type_url, ""))

    def reconnect(self):
        self.session = session.Session(self.flavour)
        self.session.given(playbook.snapshot_of(self.world), None)
        self.nonces.clear()
        self.to_server.clear()
        self.to_client.clear()
        for type_url, names in self.wanted.items():
            self._send(type_url, names, (), has=self.cache[type_url])

    def change(self, world, *, known):
        changed = playbook.difference(self.world, world) if known else None
        self.world = world
        self.session.given(playbook.snapshot_of(world), changed)

    def serve(self):
        if self.to_server:
            self.session.heard(self.to_server.popleft())

    def send(self):
        offer = self.session.next()
        if offer is not None:
            self.to_client.append(offer)
        return offer is not None

    def receive(self):
        if not self.to_client:
            return
        offer = self.to_client.popleft()
        self.nonces[offer.type_url] = offer.nonce
        odd = sorted(each.name for each in offer.resources if each.version.endswith("!"))
        self._apply(offer, odd)
        error = f"odd: {', '.join(odd)}" if odd else None
        names = self.wanted[offer.type_url] if self.flavour is not Flavour.DELTA else ()
        self._send(offer.type_url, names, (), nonce=offer.nonce, error=error)

    def settle(self):
        while self.to_server or self.to_client or self.send():
            self.serve()
            self.receive()
            if not self.to_server:
                # That it says no more is known after some time.
                self.session.says_more = False

    def _apply(self, offer, odd):
        before = dict(self.cache[offer.type_url])
        self._cached(offer, odd)
        after = self.cache[offer.type_url]
        if offer.type_url == CLUSTERS:
            self.warming |= {name for name in after if before.get(name) != after[name]}
        elif offer.type_url == ENDPOINTS:
            self.warming -= {each.name for each in offer.resources}

    def _cached(self, offer, odd):
        cache = self.cache[offer.type_url]
        tells_all = self.flavour is not Flavour.DELTA and offer.type_url == CLUSTERS
        if odd and not tells_all:
            return
        good = {each.name: each.version for each in offer.resources if each.name not in odd}
        if tells_all:
            kept = {name: cache[name] for name in odd if name in cache}
            self.cache[offer.type_url] = kept | good
            return
        for name in offer.removed:
            cache.pop(name, None)
        wanted = self.wanted[offer.type_url]
        cache.update({n: v for n, v in good.items() if "*" in wanted or n in wanted})

    def _send(self, type_url, names, dropped, *, nonce="", error=None, has=()):
        is_delta = self.flavour is Flavour.DELTA
        self.to_server.append(
            Request(
                type_url,
                names=() if is_delta else tuple(sorted(names)),
                subscribe=tuple(sorted(names)) if is_delta else (),
                unsubscribe=tuple(sorted(dropped)),
                nonce=nonce,
                error=error,
                initial_versions=dict(has) if is_delta else {},
            )
        )


resources = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VERSIONS))
worlds = st.fixed_dictionaries(dict.fromkeys(TYPES, resources))
acts = st.one_of(
    st.tuples(st.just("change"), worlds, st.booleans()),
    st.tuples(
        st.just("subscribe"),
        st.sampled_from(TYPES),
        st.frozensets(st.sampled_from(NAMES)),
    ),
    st.tuples(st.sampled_from(["serve", "send", "receive", "reconnect"])),
)


def live(flavour, history, *, client=Client):
    client = client(flavour)
    for name, *arguments in history:
        if name == "change":
            client.change(arguments[0], known=arguments[1])
        else:
            getattr(client, name)(*arguments)
    client.change(client.world, known=True)
    client.subscribe(CLUSTERS, frozenset())
    client.settle()
    return client


def has(client, type_url):
    wanted = client.wanted.get(type_url, ())
    there = client.world.get(type_url, {})
    return {
        name: own(client.cache[type_url].get(name))
        for name, version in there.items()
        if ("*" in wanted or name in wanted) and not version.endswith("!")
    }


def own(version):
    """Return what a version says of the resource itself, and not of its cluster."""
    return version and version.rpartition(".")[2]


def should_have(client, type_url):
    wanted = client.wanted.get(type_url, ())
    return {
        name: version
        for name, version in client.world.get(type_url, {}).items()
        if ("*" in wanted or name in wanted) and not version.endswith("!")
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=40), st.sampled_from(list(Flavour)))
def test_a_client_ends_with_everything_that_it_can_use(history, flavour):
    client = live(flavour, history)

    for type_url in TYPES:
        assert has(client, type_url) == should_have(client, type_url)


WARMS_WHILE_THE_STREAM_BREAKS = [
    ("subscribe", CLUSTERS, frozenset()),
    ("subscribe", ENDPOINTS, frozenset("a")),
    ("change", {CLUSTERS: {"a": "1"}, ENDPOINTS: {"a": "1"}}, True),
    ("settle",),
    ("change", {CLUSTERS: {"a": "2"}, ENDPOINTS: {"a": "1"}}, True),
    ("send",),
    ("receive",),
    ("reconnect",),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=40), st.sampled_from(list(Flavour)))
@example(WARMS_WHILE_THE_STREAM_BREAKS, Flavour.DELTA)
def test_no_cluster_warms_for_ever(history, flavour):
    client = live(flavour, history)

    assert (
        not client.warming & should_have(client, ENDPOINTS).keys() & client.cache[CLUSTERS].keys()
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(acts, max_size=40), st.sampled_from(list(Flavour)))
def test_a_client_keeps_no_cluster_that_is_gone(history, flavour):
    client = live(flavour, history)

    assert client.cache[CLUSTERS].keys() <= client.world.get(CLUSTERS, {}).keys()


@settings(max_examples=200, deadline=None)
@given(st.lists(acts, max_size=40))
def test_both_forms_of_the_protocol_agree(history):
    sotw, delta = (live(flavour, history) for flavour in Flavour)

    for type_url in TYPES:
        assert has(sotw, type_url) == has(delta, type_url)


@settings(max_examples=200, deadline=None)
@given(st.lists(acts, max_size=30), st.sampled_from(list(Flavour)))
def test_a_settled_client_hears_nothing_more(history, flavour):
    client = live(flavour, history)

    client.change(client.world, known=False)

    assert not client.send()


class Alone(Client):
    """A client that shares nothing: every step of its talk is computed for it."""

    def change(self, world, *, known):
        changed = playbook.difference(self.world, world) if known else None
        self.world = world
        self.session.given(Snapshot(playbook.snapshot_of(world).resources), changed)

    def reconnect(self):
        super().reconnect()
        self.session.given(Snapshot(playbook.snapshot_of(self.world).resources), None)


@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=40), st.sampled_from(list(Flavour)))
def test_who_shares_steps_with_others_ends_with_the_same_as_who_does_not(history, flavour):
    others, alone = live(flavour, history), live(flavour, history, client=Alone)

    assert others.cache == alone.cache
    assert others.nonces == alone.nonces
    assert others.warming == alone.warming


class Envoy(Client):
    """Asks for the endpoints of what clusters it has, and answers when none waits for any."""

    def __init__(self, flavour):
        super().__init__(flavour)
        self.unanswered = []

    def reconnect(self):
        self.unanswered.clear()
        super().reconnect()

    def receive(self):
        super().receive()
        clusters = frozenset(self.cache[CLUSTERS])
        if clusters != self.wanted.get(ENDPOINTS, frozenset()):
            self.subscribe(ENDPOINTS, clusters)
        self.warming &= clusters
        if not self.warming:
            self._answer()

    def _answer(self):
        for words in self.unanswered:
            super()._send(CLUSTERS, (), (), **words)
        self.unanswered.clear()

    def settle(self):
        super().settle()
        while any(words["error"] for words in self.unanswered):
            # Nothing else comes of what it refused; it gives up to wait for endpoints some time.
            self._answer()
            super().settle()

    def _send(self, type_url, names, dropped, **words):
        if type_url == CLUSTERS and words.get("nonce"):
            self.unanswered.append(words)
        else:
            super()._send(type_url, names, dropped, **words)


REFUSES_WHILE_ANOTHER_WAITS = [
    ("change", {CLUSTERS: {"a": "1"}}, False),
    ("subscribe", CLUSTERS, frozenset()),
    ("serve",),
    ("send",),
    ("change", {CLUSTERS: {"a": "1", "b": "1", "c": "3!"}}, False),
]


@example(REFUSES_WHILE_ANOTHER_WAITS)
@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=40))
def test_who_answers_late_about_clusters_ends_with_everything_that_it_can_use(history):
    client = live(Flavour.DELTA, [*history, ("subscribe", ROUTES, frozenset("ab"))], client=Envoy)

    for type_url in TYPES:
        assert has(client, type_url) == should_have(client, type_url)


class Prompt(Client):
    """A client that is told of what has changed in one step with it."""

    def change(self, world, *, known):
        if not known:
            super().change(world, known=known)
            return
        changed = playbook.difference(self.world, world)
        self.world = world
        self.told(self._next_of(playbook.snapshot_of(world), changed))

    def told(self, offer):
        if offer is not None:
            self.to_client.append(offer)

    def _next_of(self, snapshot, changed):
        return self.session.next_of(snapshot, changed)


class Halting(Prompt):
    """The same in two steps."""

    def _next_of(self, snapshot, changed):
        self.session.given(snapshot, changed)
        return self.session.next()


@settings(max_examples=500, deadline=None)
@given(st.lists(acts, max_size=40), st.sampled_from(list(Flavour)))
def test_who_is_told_in_one_step_hears_the_same_as_who_is_told_in_two(history, flavour):
    prompt, halting = (live(flavour, history, client=each) for each in (Prompt, Halting))

    assert prompt.cache == halting.cache
    assert prompt.nonces == halting.nonces
    for type_url in TYPES:
        assert has(prompt, type_url) == should_have(prompt, type_url)


class PromptAlone(Prompt):
    """A client that is told in one step, which is computed for it."""

    def change(self, world, *, known):
        if known:
            super().change(world, known=True)
        else:
            self.world = world
            self.session.given(Snapshot(playbook.snapshot_of(world).resources), None)

    def _next_of(self, snapshot, changed):
        return self.session.next_of(Snapshot(snapshot.resources), changed)


def stands(client):
    return {
        kind: (each.state, each.newest, each.acked, each.refused, each.error, len(each.waiting))
        for kind, each in client.session.talks.items()
    }


own_acts = st.one_of(
    st.tuples(
        st.just("subscribe"),
        st.sampled_from(TYPES),
        st.frozensets(st.sampled_from(NAMES)),
    ),
    st.tuples(st.sampled_from(["serve", "send", "receive", "reconnect", "settle"])),
)
shared_acts = st.tuples(st.just("change"), worlds, st.booleans())


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.frozensets(st.integers(0, 2), min_size=1), own_acts | shared_acts)),
    st.sampled_from(list(Flavour)),
)
def test_those_who_stand_alike_part_when_different_things_happen_to_them(history, flavour):
    crowd, alone = ([kind(flavour) for _ in range(3)] for kind in (Prompt, PromptAlone))
    begin = [("subscribe", each, frozenset(NAMES)) for each in TYPES]
    for who, (name, *arguments) in [*((range(3), act) for act in begin), *history]:
        # What there is changes for all of them.
        for number in range(3) if name == "change" else sorted(who):
            for client in (crowd[number], alone[number]):
                if name == "change":
                    client.change(arguments[0], known=arguments[1])
                else:
                    getattr(client, name)(*arguments)

    for one, other in zip(crowd, alone, strict=True):
        assert stands(one) == stands(other)
        assert (one.cache, one.nonces, one.warming) == (other.cache, other.nonces, other.warming)
        assert one.to_client == other.to_client
