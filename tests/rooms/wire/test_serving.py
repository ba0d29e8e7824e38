import asyncio
import contextlib
import ssl

from cryptography import x509

from isthmus.base import clock
from isthmus.testing import certificates
from isthmus.wire import tls

NOW = clock.SystemClock().now()
NAME = "istiod.istio-system.svc"


def issued(root: str) -> tls.Certificate:
    return tls.issue(certificates.signer(of=root, now=NOW), names=(NAME,), now=NOW)


async def shown_to(client: ssl.SSLContext, port: int) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=NAME)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(der).issuer.rfc4514_string()


async def test_a_web_server_follows_the_certificate_without_a_restart():
    serving = tls.Serving(issued("first"))
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=serving.web_context()
    )
    port = server.sockets[0].getsockname()[1]
    async with server:
        for root in ("first", "second"):
            serving.replace(issued(root))
            trusting = ssl.create_default_context(cadata=serving.certificate.roots_pem)
            assert "CN=Intermediate CA" in await shown_to(trusting, port)


def test_it_is_renewed_at_half_of_its_life():
    life = issued("first").renew_at - NOW

    assert 44 <= life.days <= 46


def test_keys_are_in_no_text():
    assert "PRIVATE" not in repr(issued("first"))
