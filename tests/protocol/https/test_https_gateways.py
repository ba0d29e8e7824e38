"""TLS that ends at a gateway: what a real Envoy shows to whom, from which Secret, and when not."""

import ssl

import ended
import pytest

from isthmus.kube import kinds, objects

HOST = "shop.example.com"
OTHER = "other.example.com"


def simple(mesh):
    mesh.secret("shop", ended.content("shop"))
    mesh.doors(mesh.https(HOST))


async def answers(mesh, host=HOST, **more):
    return await mesh.ask(host, **more) == host


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
async def test_a_gateway_shows_the_certificate_of_the_secret_and_routes(tmp_path, api_type):
    async with ended.running(tmp_path, simple, api_type=api_type) as mesh:
        await mesh.until(lambda: answers(mesh))

        assert mesh.reviews[0] == ("system:serviceaccount:front:gateway", "front", "get", "shop")
        assert mesh.findings() == []


async def test_a_certificate_that_is_replaced_is_shown_at_once(tmp_path):
    async with ended.running(tmp_path, simple) as mesh:
        await mesh.until(lambda: answers(mesh))
        before = await mesh.shown(HOST)
        mesh.secret("shop", ended.content("shop"))

        async def is_another():
            return await mesh.shown(HOST) != before

        await mesh.until(is_another)
        assert await answers(mesh)


async def test_a_secret_that_breaks_leaves_the_last_good_one(tmp_path):
    async with ended.running(tmp_path, simple) as mesh:
        await mesh.until(lambda: answers(mesh))
        before = await mesh.shown(HOST)
        mesh.secret("shop", {**ended.content("shop"), "tls.key": ended.key_pem("another")})

        async def is_told():
            return bool(mesh.findings())

        await mesh.until(is_told)
        assert await mesh.shown(HOST) == before
        assert "`tls.key` belongs to another certificate" in mesh.findings()[0][1]


async def test_a_secret_that_is_missing_costs_its_own_host_alone(tmp_path):
    def prepare(mesh):
        mesh.secret("shop", ended.content("other"))
        mesh.readable.add(("get", "late"))
        mesh.doors(mesh.https(HOST, credential="late"), mesh.https(OTHER))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, OTHER))
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST)
        named = "Secret front/late in cluster `c1`"
        assert mesh.findings() == [(named, "cannot be used by a gateway: it is not there")]

        mesh.secret("late", ended.content("shop"))
        await mesh.until(lambda: answers(mesh))
        await mesh.until(lambda: _is_well(mesh))


async def _is_well(mesh):
    return mesh.findings() == []


async def test_a_secret_that_the_gateways_account_may_not_read_is_never_read(tmp_path):
    def prepare(mesh):
        simple(mesh)
        mesh.readable.clear()

    async with ended.running(tmp_path, prepare) as mesh:

        async def is_told():
            return bool(mesh.findings())

        await mesh.until(is_told)
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST)

        assert "may not be read by account `gateway`" in mesh.findings()[0][1]
        assert not any("/secrets" in one for one in mesh.server.requests)


async def test_clients_without_a_certificate_of_the_right_authority_stay_outside(tmp_path):
    def prepare(mesh):
        mesh.secret(
            "shop", {**ended.content("shop"), "ca.crt": ended.certificate("clients", of="clients")}
        )
        mesh.doors(mesh.https(HOST, mode="MUTUAL"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, client="ann"))

        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST)
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST, client="ann", client_of="strangers")


async def test_the_authorities_of_clients_may_be_in_a_secret_of_their_own(tmp_path):
    def prepare(mesh):
        mesh.secret(
            "shop",
            {"cert": ended.content("shop")["tls.crt"], "key": ended.key_pem("shop")},
            "Opaque",
        )
        mesh.secret("shop-cacert", {"cacert": ended.certificate("clients", of="clients")}, "Opaque")
        mesh.doors(mesh.https(HOST, mode="MUTUAL"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, client="ann"))
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST)


async def test_without_any_authority_nobody_gets_in(tmp_path):
    def prepare(mesh):
        mesh.secret("shop", ended.content("shop"))
        mesh.secret("other", ended.content("other"))
        mesh.readable.add(("get", "other"))
        mesh.doors(mesh.https(HOST, mode="MUTUAL"), mesh.https(OTHER, credential="other"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, OTHER))

        for client in ("", "ann"):
            with pytest.raises((OSError, EOFError)):
                await mesh.ask(HOST, client=client)
        assert mesh.findings()[0][0] == "Secret front/shop-cacert in cluster `c1`"


async def test_certificates_of_clients_may_be_optional_but_then_must_be_good(tmp_path):
    def prepare(mesh):
        mesh.secret(
            "shop", {**ended.content("shop"), "ca.crt": ended.certificate("clients", of="clients")}
        )
        mesh.doors(mesh.https(HOST, mode="OPTIONAL_MUTUAL"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh))
        assert await answers(mesh, client="ann")
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST, client="ann", client_of="strangers")


async def test_a_connection_for_one_host_asks_for_no_other(tmp_path):
    """Whoever needs no certificate for one host must not reach another through it."""

    def prepare(mesh):
        mesh.secret(
            "shop", {**ended.content("shop"), "ca.crt": ended.certificate("clients", of="clients")}
        )
        mesh.secret("other", ended.content("other"))
        mesh.readable.add(("get", "other"))
        mesh.doors(mesh.https(HOST, mode="MUTUAL"), mesh.https(OTHER, credential="other"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, OTHER))

        assert await mesh.ask(HOST, name=OTHER) == (421, "")


async def test_a_host_without_routes_is_not_found(tmp_path):
    def prepare(mesh):
        mesh.secret("shop", ended.content("shop"))
        mesh.doors(mesh.https(HOST, "*.shop.example.com"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh))

        assert await mesh.ask("new.shop.example.com", name=HOST) == (404, "")


async def test_versions_below_the_lowest_are_refused(tmp_path):
    def prepare(mesh):
        mesh.secret("shop", ended.content("shop"))
        mesh.doors(mesh.https(HOST, min_protocol_version="TLSV1_3"))

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh, lowest=ssl.TLSVersion.TLSv1_3))
        with pytest.raises((OSError, EOFError)):
            await mesh.ask(HOST, highest=ssl.TLSVersion.TLSv1_2)


async def test_plain_requests_are_sent_to_https(tmp_path):
    def prepare(mesh):
        simple(mesh)
        plain = objects.GatewayServer(
            port=objects.GatewayPort(number=mesh.plain_port, name="http", protocol="HTTP"),
            hosts=("*",),
            tls=objects.GatewayTls(https_redirect=True),
        )
        mesh.doors(mesh.https(HOST), plain)

    async with ended.running(tmp_path, prepare) as mesh:
        await mesh.until(lambda: answers(mesh))

        for host in (HOST, "unknown.example.com"):
            assert await mesh.ask_plainly(host) == (301, f"https://{host}/")


async def test_a_secret_that_is_removed_is_given_to_nobody_new(tmp_path):
    async with ended.running(tmp_path, simple) as mesh:
        await mesh.until(lambda: answers(mesh))
        assert mesh.held() == {"kubernetes://shop"}
        mesh.server.remove(kinds.SECRET, "shop", "front")

        async def is_told():
            return bool(mesh.findings())

        await mesh.until(is_told)
        assert mesh.held() == set()
