"""Pages about the control plane, and who may see them."""

import stat

import aiohttp
import pytest

from isthmus.wire import admin


class FakeReports:
    def __getattr__(self, name):
        if name in admin.DEBUG:
            return lambda: [{"page": name, "private_key": "secret"}]
        raise AttributeError(name)

    def registration(self):
        return [{"service-key": "web.shop.svc.cluster.local|http", "hosts": []}]

    def config_dump(self, proxy):
        return {"configs": [{"token": "secret"}]} if proxy == "sleep.default" else None

    def edsz(self, proxy):
        return [] if proxy == "sleep.default" else None


def pages(unready=""):
    return admin.Pages(FakeReports(), unready=lambda: unready, metrics_text=lambda: "up 1\n")


async def asked(url, *, path=None):
    connector = aiohttp.UnixConnector(path) if path else None
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url) as answer,
    ):
        return answer.status, await answer.text()


@pytest.fixture
async def local(tmp_path):
    path = str(tmp_path / "reports.sock")
    async with admin.listening(pages().private(), path=path):
        yield lambda page: asked(f"http://control-plane{page}", path=path)


async def test_everybody_sees_readiness_version_and_metrics():
    async with admin.listening(pages().public(), host="127.0.0.1") as port:
        base = f"http://127.0.0.1:{port}"

        assert await asked(f"{base}/ready") == (200, "")
        assert await asked(f"{base}/metrics") == (200, "up 1\n")
        assert (await asked(f"{base}/version"))[0] == 200


async def test_the_reason_is_said_while_it_is_not_ready():
    async with admin.listening(pages("no roots").public(), host="127.0.0.1") as port:
        assert await asked(f"http://127.0.0.1:{port}/ready") == (503, "no roots\n")


@pytest.mark.parametrize("page", [*admin.DEBUG, *admin.OF_PROXY, "list"])
async def test_loopback_grants_nothing(page):
    async with admin.listening(pages().public(), host="127.0.0.1") as port:
        status, _ = await asked(f"http://127.0.0.1:{port}/debug/{page}?proxyID=sleep.default")

    assert status == 404


@pytest.mark.parametrize("page", admin.DEBUG)
async def test_the_socket_shows_every_page_without_its_keys(local, page):
    status, text = await local(f"/debug/{page}")

    assert status == 200
    assert text == f'[{{"page":"{page}","private_key":"[redacted]"}}]\n'


async def test_the_socket_is_closed_to_other_users(tmp_path):
    path = tmp_path / "reports.sock"
    path.write_text("left over")
    async with admin.listening(pages().private(), path=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_pages_of_one_proxy_need_one_that_is_connected(local):
    assert (await local("/debug/config_dump"))[0] == 400
    assert await local("/debug/edsz?proxyID=other.default") == (404, admin.NOT_CONNECTED)
    assert await local("/debug/config_dump?proxyID=sleep.default") == (
        200,
        '{"configs":[{"token":"[redacted]"}]}\n',
    )


async def test_pages_can_be_made_pretty_and_are_listed(local):
    assert (await local("/debug/syncz?pretty"))[1].startswith('[\n  {\n    "page"')
    assert '"/debug/clusterz"' in (await local("/debug"))[1]


async def test_old_names_of_pages_still_lead_to_them(local):
    assert '"endpointz"' in (await local("/debug/endpointShardz"))[1]


async def test_the_old_listing_of_services_is_laid_out_in_lines(local):
    assert (await local("/v1/registration"))[1].startswith('[\n  {\n    "service-key"')
