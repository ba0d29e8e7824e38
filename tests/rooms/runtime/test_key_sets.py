"""Keys of those who issue tokens: when they are fetched, and what is believed meanwhile."""

import asyncio
import itertools
import json

import pytest

from isthmus.base import clock as clocks
from isthmus.base import errors, metrics, tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, key_sets
from isthmus.testing import pace

C1 = ClusterId("c1")
URI = "https://issuer.example/keys"
ISSUER = "https://issuer.example"
REFRESH_S = 1200.0


class HandClock(clocks.SystemClock):
    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s


class Refused(errors.IsthmusError):
    code = "ISM-TEST-001"


def a_set(*names, **more):
    return json.dumps({"keys": [{"kty": "RSA", "n": name, "e": "AQAB", **more} for name in names]})


class Setting:
    """A mesh with one rule, and what is to be had at addresses."""

    def __init__(self, **rule):
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace="istio-system", domain="cluster.local"
        )
        self.served = {URI: a_set("one")}
        self.asked = []
        self.clock = HandClock()
        self.metrics = metrics.Metrics()
        self.keeper = key_sets.KeySets(
            self.mesh,
            fetch=self.fetch,
            refresh_s=REFRESH_S,
            registered=self.metrics,
            system_clock=self.clock,
        )
        self.rule(**rule or {"jwksUri": URI})

    async def fetch(self, source):
        self.asked.append(source.uri or source.issuer)
        if self.asked[-1] not in self.served:
            raise Refused("nobody is there")
        if isinstance(found := self.served[self.asked[-1]], Exception):
            raise found
        return found

    def rule(self, name="r", **said):
        meta = objects.Metadata(name=name, namespace="apps")
        spec = {"jwtRules": [{"issuer": ISSUER, **said}]}
        with self.mesh.graph.transaction() as transaction:
            key = ObjectKey(C1, "apps", name)
            source = self.mesh.sources.request_authentications
            transaction.put(source, key, objects.FreeForm(meta, spec=spec))

    @property
    def keys(self):
        """The keys that tokens are judged by, by their number."""
        found = self.mesh.graph.items(self.mesh.model.request_authentications)
        (text,) = {rule.keys for one in found.values() for rule in one.rules}
        return [one["n"] for one in json.loads(text)["keys"]] if text else []

    async def after(self, seconds):
        self.clock.now_s += seconds
        await self.keeper.look()
        return self.keys

    @property
    def faults(self):
        return [one.happened for one in self.keeper.findings()]


async def test_until_keys_were_fetched_nobody_is_believed():
    setting = Setting()
    assert (setting.keys, setting.keeper.is_settled) == ([], False)

    assert await setting.after(0) == ["one"]
    assert setting.keeper.is_settled
    assert not setting.faults


async def test_keys_are_fetched_again_when_they_are_due_and_not_before():
    setting = Setting()
    await setting.after(0)
    setting.served[URI] = a_set("two")

    assert await setting.after(REFRESH_S - 1) == ["one"]
    assert await setting.after(1) == ["two"]
    assert len(setting.asked) == 2


async def test_the_last_keys_stay_while_nobody_answers_but_no_longer_than_a_week():
    setting = Setting()
    await setting.after(0)
    setting.served.clear()

    assert await setting.after(REFRESH_S) == ["one"]
    assert setting.faults == ["its keys cannot be fetched: nobody is there"]
    assert await setting.after(key_sets.KEPT_S - REFRESH_S - 1) == ["one"]
    assert await setting.after(key_sets.RETRY_S) == []
    setting.served[URI] = a_set("two")
    assert await setting.after(key_sets.RETRY_S) == ["two"]
    assert not setting.faults


async def test_a_failure_is_tried_again_soon_then_less_often():
    setting = Setting()
    setting.served.clear()
    times = []
    for _ in range(100):
        before = len(setting.asked)
        assert await setting.after(1) == []
        times += [setting.clock.now_s] if len(setting.asked) > before else []

    assert [after - before for before, after in itertools.pairwise(times)] == [
        1, 2, 4, 8, 16, 32,
    ]  # fmt: skip
    assert "pilot_jwks_resolver_network_fetch_fail_total 7" in setting.metrics.text()


@pytest.mark.parametrize(
    "text", ["", "[]", "no", '{"keys": {}}', '{"keys": [{"kty": []}, 1]}', "[" * 100_000,
             a_set("x" * 70_000), '{"keys": [{"kty": "RSA", "n": "\\ud800"}]}'],
)  # fmt: skip
async def test_what_is_no_set_of_keys_replaces_none(text):
    setting = Setting()
    await setting.after(0)
    setting.served[URI] = text

    assert await setting.after(REFRESH_S) == ["one"]
    assert setting.faults == ["its keys cannot be fetched: what is there is no set of keys"]


async def test_nothing_but_keys_that_verify_reaches_a_proxy():
    setting = Setting()
    secret = {"d": "private", "x5c": ["a"], "note": "read me", "exp": float("inf")}
    odd = {"kty": "odd", "n": "no"}
    known = json.loads(a_set("one", **secret))["keys"]
    setting.served[URI] = json.dumps({"keys": [*known, odd], "more": "x"})
    await setting.after(0)

    (one,) = setting.mesh.graph.items(setting.mesh.model.request_authentications).values()
    assert json.loads(one.rules[0].keys) == {"keys": [{"kty": "RSA", "n": "one", "e": "AQAB"}]}


async def test_without_an_address_the_issuer_is_asked():
    setting = Setting(audiences=["x"])
    setting.served[ISSUER] = a_set("mine")

    assert await setting.after(0) == ["mine"]
    assert setting.asked == [ISSUER]


async def test_keys_that_are_written_down_are_not_fetched():
    setting = Setting(jwks=a_set("mine"), jwksUri=URI)

    assert await setting.after(0) == ["mine"]
    assert not setting.asked


@pytest.mark.parametrize("said", [{"jwksUri": "http://issuer.example"}, {"jwksUri": "file:///etc"}])
async def test_nothing_is_fetched_in_plain_text_and_the_object_is_named(said):
    setting = Setting(**said)

    assert await setting.after(0) == []
    assert not setting.asked
    (finding,) = setting.mesh.graph.items(setting.mesh.model.findings).values()
    assert finding.subject == "RequestAuthentication apps/r"


async def test_one_set_is_fetched_once_for_all_rules_and_forgotten_with_the_last():
    setting = Setting()
    setting.rule("other", jwksUri=URI)
    await setting.after(0)
    assert setting.asked == [URI]

    for name in ("r", "other"):
        setting.rule(name, jwks=a_set("mine"))
    await setting.after(0)
    assert not setting.mesh.graph.items(setting.mesh.model.key_sets.fetched)


async def test_what_is_new_is_fetched_at_once():
    setting = Setting()
    heard = asyncio.Queue()
    setting.mesh.graph.listen(lambda _: heard.put_nowait(setting.keys))
    async with tasks.Nursery() as nursery, asyncio.timeout(pace.patience(5)):
        _ = nursery.keep("keys", setting.keeper.run)
        while await heard.get() != ["one"]:
            pass
        setting.served["https://new.example"] = a_set("new")
        setting.rule(jwksUri="https://new.example")
        while await heard.get() != ["new"]:
            pass


async def test_what_goes_wrong_with_one_issuer_keeps_nobody_elses_keys_away():
    setting = Setting()
    setting.rule("a", issuer="https://odd.example", jwksUri="https://a.example")
    setting.served["https://a.example"] = ValueError("what nobody has thought of")

    await setting.keeper.look()
    fetched = setting.mesh.graph.items(setting.mesh.model.key_sets.fetched)
    assert [source.uri for source in fetched] == [URI]
    setting.clock.now_s += key_sets.SOONEST_S
    await setting.keeper.look()
    assert setting.asked.count("https://a.example") == 1


async def test_proxies_do_not_wait_for_ever_for_keys_that_nobody_has():
    setting = Setting()
    assert not setting.keeper.is_settled
    setting.clock.now_s += key_sets.SETTLING_S + 1
    assert setting.keeper.is_settled
