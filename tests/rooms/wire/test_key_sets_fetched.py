"""Keys over real HTTPS: what is fetched from a server, and what is not."""

import asyncio
import contextlib
import ipaddress

import pytest
from aiohttp import web

from isthmus.base import clock
from isthmus.lab.apiserver import pki
from isthmus.mesh.authentication import KeySource
from isthmus.runtime import key_sets as keeping
from isthmus.wire import key_sets

KEYS = '{"keys": [{"kty": "RSA"}]}'
NOBODY = key_sets.KeysUnavailable


class Issuer:
    """A server of HTTPS on loopback; `pages` are what it answers, by path."""

    def __init__(self, roots):
        self.pages = {"/keys": lambda: web.Response(text=KEYS)}
        self.asked = []
        self.url = ""
        self.fetcher = key_sets.Fetcher(forbidden=lambda _: "", more_roots=str(roots))

    async def answer(self, request):
        self.asked.append((request.path, dict(request.headers)))
        page = self.pages.get(request.path, lambda: web.Response(status=404))()
        return await page if asyncio.iscoroutine(page) else page

    async def keys(self, path="/keys", *, issuer="", timeout_s=5.0):
        uri = "" if issuer else self.url + path
        return await self.fetcher.fetch(KeySource(issuer, uri, timeout_s))

    def moves(self, path, to, status=302):
        self.pages[path] = lambda: web.Response(status=status, headers={"location": to})


@pytest.fixture
async def issuer(tmp_path):
    now = clock.SystemClock().now()
    authority = pki.make_cluster_authority(
        "issuer", now=now, cluster_ip="10.0.0.1", addresses=["localhost"]
    )
    (tmp_path / "roots.pem").write_text(authority.ca_pem)
    found = Issuer(tmp_path / "roots.pem")
    async with served(found, pki.server_context(authority)) as port:
        found.url = f"https://localhost:{port}"
        yield found


@contextlib.asynccontextmanager
async def served(found, context):
    app = web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_keys_are_fetched_and_nothing_of_ours_is_sent(issuer):
    assert await issuer.keys() == KEYS
    ((_, headers),) = issuer.asked
    assert not {"Authorization", "Cookie"} & set(headers)


async def test_an_issuer_says_where_its_keys_are(issuer):
    said = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
    issuer.pages[key_sets.DISCOVERY] = lambda: web.json_response(said)

    assert await issuer.keys(issuer=f"{issuer.url}/") == KEYS
    said.pop("jwks_uri")
    with pytest.raises(NOBODY, match="jwks_uri"):
        await issuer.keys(issuer=issuer.url)
    issuer.pages[key_sets.DISCOVERY] = lambda: web.Response(text="[" * 100_000)
    with pytest.raises(NOBODY, match="nested too deeply"):
        await issuer.keys(issuer=issuer.url)


async def test_a_server_that_is_not_believed_is_not_asked(issuer):
    issuer.fetcher = key_sets.Fetcher(forbidden=lambda _: "")

    with pytest.raises(NOBODY, match="certificate"):
        await issuer.keys()
    assert not issuer.asked


async def test_few_redirects_are_followed_and_none_from_https(issuer):
    issuer.moves("/a", "/keys")
    assert await issuer.keys("/a") == KEYS
    issuer.moves("/b", issuer.url.replace("https:", "http:") + "/keys")
    with pytest.raises(NOBODY, match="no plain address of HTTPS"):
        await issuer.keys("/b")
    issuer.moves("/round", "/round")
    with pytest.raises(NOBODY, match="more than 3 times"):
        await issuer.keys("/round")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (lambda: web.Response(status=500), "status 500"),
        (lambda: web.Response(body=b"x" * (key_sets.MOST_BYTES + 1)), "longer"),
        (lambda: web.Response(body=b"\xff\xff"), "UnicodeDecodeError"),
        (lambda: web.Response(body=b"x", headers={"content-encoding": "gzip"}), "compressed"),
    ],
)
async def test_an_answer_that_is_none_is_refused(issuer, page, why):
    issuer.pages["/odd"] = page

    with pytest.raises(NOBODY, match=why):
        await issuer.keys("/odd")


async def test_nobody_is_waited_for_longer_than_said(issuer):
    issuer.pages["/slow"] = lambda: asyncio.sleep(30, web.Response())

    with pytest.raises(NOBODY, match=r"within 0\.2 s"):
        await issuer.keys("/slow", timeout_s=0.2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::1]"])
async def test_the_control_planes_own_addresses_are_not_asked_by_any_spelling(issuer, host):
    port = issuer.url.rpartition(":")[2]
    issuer.fetcher = key_sets.Fetcher(forbidden=keeping.confined(()))

    with pytest.raises(NOBODY, match=r"loopback|InvalidUrl"):
        await issuer.fetcher.fetch(KeySource("x", f"https://{host}:{port}/keys"))
    issuer.fetcher = key_sets.Fetcher(forbidden=lambda _: "blocked")
    issuer.moves("/a", f"https://{host}:{port}/keys")
    with pytest.raises(NOBODY, match=r"blocked|InvalidUrl"):
        await issuer.keys("/a")
    assert not issuer.asked


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "a cloud's own"),
        ("fd00:ec2::254", "a cloud's own"),
        ("100.100.100.200", "a cloud's own"),
        ("0.0.0.0", "no address"),
        ("fe80::1%eth0", "link-local"),
        ("192.0.2.7", "blocked by a setting"),
        ("10.1.2.3", ""),
        ("203.0.113.9", ""),
    ],
)
def test_which_addresses_may_be_asked(address, why):
    ranges = [ipaddress.ip_network("192.0.2.0/24")]

    assert keeping.confined(ranges)(address) == why
