"""Pages about the control plane, and who may see them."""

import stat

import aiohttp
import pytest

from isthmus.mesh.identities import ClusterId
from isthmus.wire import admin, callers, debugging
from isthmus.wire import pages as paging

OWN, OTHER = ClusterId("c1"), ClusterId("c2")
PROXIES = [(OWN, "shop", "a"), (OTHER, "shop", "a"), (OTHER, "shop", "b"), (OWN, "bank", "c")]
CALLERS = {
    "mesh admin": callers.Caller(OWN, "istio-system", "admin"),
    "trusted namespace": callers.Caller(OWN, "ops", "admin"),
    "remote admin": callers.Caller(OTHER, "istio-system", "admin"),
    "same namespace": callers.Caller(OWN, "shop", "a"),
    "same name elsewhere": callers.Caller(OTHER, "shop", "a"),
    "other namespace": callers.Caller(OWN, "bank", "c"),
}
TOKENS = {name.replace(" ", "-"): caller for name, caller in CALLERS.items()}


class FakeReports:
    def page(self, name):
        return [{"page": name, "private_key": "secret"}]

    def registration(self):
        return [{"service-key": "web.shop.svc.cluster.local|http", "hosts": []}]

    def page_of(self, name, proxy, query, viewer):
        found = [
            cluster
            for cluster, namespace, pod in PROXIES
            if proxy in {f"{pod}.{namespace}", f"{pod}.{namespace}.{cluster}"}
            and viewer.may_see(cluster=cluster, namespace=namespace)
        ]
        if len(found) > 1:
            raise debugging.ProxyAmbiguous("2 clusters have a proxy", detail="a.shop.c1\na.shop.c2")
        return {"of": found[0], "token": "secret"} if found else None


class FakeAuthenticator:
    async def authenticate(self, credentials):
        if credentials.token == "nobody-judges":
            raise TimeoutError
        caller = TOKENS.get(credentials.token)
        if caller is None or credentials.claimed_cluster not in {OWN, OTHER}:
            raise callers.CallerRefused("the token proves nothing")
        return caller


def desk(**more):
    return debugging.Desk(
        FakeReports(),
        own_cluster=OWN,
        system_namespace="istio-system",
        trusted_namespaces=("ops",),
        **{"at_once": 1000, **more},
    )


def pages(unready="", **more):
    return admin.Pages(desk(**more), unready=lambda: unready, metrics_text=lambda: "up 1\n")


async def asked(url, *, path=None, token="", method="GET"):
    connector = aiohttp.UnixConnector(path) if path else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, url, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.fixture
async def local(tmp_path):
    path = str(tmp_path / "reports.sock")
    async with paging.listening(pages().private(), path=path):
        yield lambda page: asked(f"http://control-plane{page}", path=path)


@pytest.fixture
async def remote():
    application = pages().guarded(FakeAuthenticator())
    async with paging.listening(application, host="127.0.0.1") as port:

        async def ask(page, caller="", **more):
            token = caller.replace(" ", "-")
            return await asked(f"http://127.0.0.1:{port}{page}", token=token, **more)

        yield ask


async def test_everybody_sees_readiness_version_and_metrics(remote):
    assert await remote("/ready") == (200, "")
    assert await remote("/metrics") == (200, "up 1\n")
    assert (await remote("/version"))[1].count("-") == 2
    assert await remote("//version") == await remote("/version")


async def test_the_reason_is_said_while_it_is_not_ready():
    async with paging.listening(pages("no roots").public(), host="127.0.0.1") as port:
        assert await asked(f"http://127.0.0.1:{port}/ready") == (503, "no roots\n")


EVERY_PAGE = sorted([*debugging.PAGES, *debugging.OF_PROXY, "list", "", "pprof"])


PROXY_IDS = ("a.shop", "b.shop", "c.bank", "z.shop")
ALL_REFUSED = (403, 403, 403, 403)
TABLE = {
    # Pages about the mesh, pages about one proxy for namespaces, other pages about one proxy; of
    # the four proxies `a.shop` is in both clusters, `b.shop` in the other, `z.shop` nowhere.
    "mesh admin": ((200, 200, 200, 200), (409, 200, 200, 404), (409, 200, 200, 404)),
    "trusted namespace": ((200, 200, 200, 200), (409, 200, 200, 404), (409, 200, 200, 404)),
    "remote admin": (ALL_REFUSED, (200, 200, 404, 404), (200, 200, 404, 404)),
    "same namespace": (ALL_REFUSED, (200, 404, 403, 404), ALL_REFUSED),
    "same name elsewhere": (ALL_REFUSED, (200, 200, 403, 404), ALL_REFUSED),
    "other namespace": (ALL_REFUSED, (403, 403, 200, 403), ALL_REFUSED),
}


def expected(caller, page, proxy):
    """Return the status that the table says; `explain` tells of others' services."""
    of_mesh, of_own, of_others = TABLE[caller]
    row = of_mesh
    if page in {"config_dump", "edsz", "ndsz"}:
        row = of_own
    elif page in debugging.OF_PROXY:
        row = ALL_REFUSED if page == "explain" and caller == "remote admin" else of_others
    status = row[PROXY_IDS.index(proxy)]
    return 404 if page == "pprof" and status == 200 else status


@pytest.mark.parametrize("proxy", PROXY_IDS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_each_caller_sees_of_each_page_what_is_its_own(remote, caller, proxy):
    for page in EVERY_PAGE:
        status, _ = await remote(f"/debug/{page}?proxyID={proxy}&host=web", caller)

        assert status == expected(caller, page, proxy), page


@pytest.mark.parametrize("caller", ["", "wrong audience", "expired"])
async def test_loopback_grants_nothing_and_no_proof_is_no_page(remote, caller):
    for page in (*EVERY_PAGE, "../v1/registration"):
        status, _ = await remote(f"/debug/{page}?proxyID=a.shop", caller)

        assert status == 401, page


async def test_loopback_counts_only_where_it_was_asked_for():
    application = pages().guarded(FakeAuthenticator(), trusts_loopback=True)
    async with paging.listening(application, host="127.0.0.1") as port:
        assert (await asked(f"http://127.0.0.1:{port}/debug/syncz"))[0] == 200


async def test_one_of_two_pods_of_one_name_must_be_told_by_its_cluster(remote):
    status, text = await remote("/debug/config_dump?proxyID=a.shop", "mesh admin")
    assert (status, "a.shop.c1\na.shop.c2" in text) == (409, True)

    _, one = await remote("/debug/config_dump?proxyID=a.shop.c2", "mesh admin")
    assert one == '{"of":"c2","token":"[redacted]"}\n'


async def test_who_has_a_namesake_elsewhere_is_shown_its_own_cluster_alone(remote):
    assert '"of":"c1"' in (await remote("/debug/edsz?proxyID=a.shop", "same namespace"))[1]
    assert '"of":"c2"' in (await remote("/debug/edsz?proxyID=a.shop", "same name elsewhere"))[1]
    assert (await remote("/debug/edsz?proxyID=a.shop.c1", "same name elsewhere"))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_pages_are_only_read(remote, method):
    for page in EVERY_PAGE:
        assert (await remote(f"/debug/{page}", "mesh admin", method=method))[0] in {404, 405}


@pytest.mark.parametrize(
    "path",
    ["//debug/syncz", "/debug%2Fsyncz", "/metrics/../debug/syncz", "/ready/../debug/syncz", "/Debug/syncz"],
)  # fmt: skip
async def test_no_spelling_of_a_path_leads_around_the_proof(remote, path):
    assert (await remote(path))[0] in {401, 404}


async def test_who_asks_too_often_must_wait():
    application = pages(at_once=2).guarded(FakeAuthenticator())
    async with paging.listening(application, host="127.0.0.1") as port:
        url = f"http://127.0.0.1:{port}/debug/clusterz"
        found = {(await asked(url, token="mesh-admin"))[0] for _ in range(6)}

    assert found == {200, 429}


async def test_nobody_is_let_in_while_nobody_can_judge(remote):
    assert (await remote("/debug/syncz", "nobody judges"))[0] == 503


@pytest.mark.parametrize("page", debugging.PAGES)
async def test_the_socket_shows_every_page_without_its_keys(local, page):
    status, text = await local(f"/debug/{page}")

    assert status == 200
    assert text == f'[{{"page":"{page}","private_key":"[redacted]"}}]\n'


async def test_the_socket_is_closed_to_other_users(tmp_path):
    path = tmp_path / "reports.sock"
    path.write_text("left over")
    async with paging.listening(pages().private(), path=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_pages_of_one_proxy_need_one_that_is_connected(local):
    assert (await local("/debug/config_dump"))[0] == 400
    assert await local("/debug/edsz?proxyID=other.default") == (404, debugging.NOT_CONNECTED)
    assert (await local("/debug/config_dump?proxyID=c.bank"))[1] == (
        '{"of":"c1","token":"[redacted]"}\n'
    )


async def test_pages_can_be_made_pretty_and_are_listed(local):
    assert (await local("/debug/syncz?pretty"))[1].startswith('[\n  {\n    "page"')
    assert '"/debug/clusterz"' in (await local("/debug"))[1]
    assert await local("/debug") == await local("/debug/list")


async def test_the_old_listing_of_services_is_laid_out_in_lines(local, remote):
    assert (await local("/v1/registration"))[1].startswith('[\n  {\n    "service-key"')
    assert (await remote("/v1/registration"))[0] == 401
    assert (await remote("/v1/registration", "same namespace"))[0] == 403
