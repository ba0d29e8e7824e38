"""Fetches the keys of those who issue tokens, over HTTPS.

Who wrote the address may not be trusted with ours: every connection is looked at where it is made,
after names were resolved; redirects are few and lead to HTTPS only; answers are short, plain and in
time; nothing of ours is sent. What the keys are worth, others decide.

Source: security rule RS-2; OpenID Connect Discovery 1.0, section 4.

    IsthmusError
    └── KeysUnavailable
"""

import asyncio
import json
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from isthmus.base import errors, version
from isthmus.mesh.authentication import KeySource

DISCOVERY: Final = "/.well-known/openid-configuration"
MOST_BYTES: Final = 256 * 1024
MOST_REDIRECTS: Final = 3
CHUNK: Final = 16 * 1024
OK: Final = 200
MOVED: Final = frozenset({301, 302, 303, 307, 308})

Forbidden = Callable[[str], str]
"""Returns why an address may not be connected to; empty if it may."""


class KeysUnavailable(errors.IsthmusError):
    """The keys of an issuer cannot be had."""

    code = "ISM-WIRE-021"


class Fetcher:
    """Fetches sets of keys."""

    def __init__(self, *, forbidden: Forbidden, more_roots: str = "") -> None:
        """Prepare.

        Args:
            forbidden: Says of addresses why they may not be asked.
            more_roots: File with certificates that are believed beside the system's, if it exists.
        """
        self._forbidden = forbidden
        self._more_roots = Path(more_roots) if more_roots else None

    async def fetch(self, source: KeySource) -> str:
        """Return what is said to be the set of keys.

        Raises:
            KeysUnavailable: It cannot be had (ISM-WIRE-021).
        """
        try:
            async with asyncio.timeout(source.timeout_s), self._session() as session:
                uri = source.uri or await self._discovered(session, source.issuer)
                return (await self._got(session, uri)).decode()
        except TimeoutError as error:
            raise KeysUnavailable(f"no answer within {source.timeout_s:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or "it is not believed"
            raise KeysUnavailable(f"the server's certificate: {why}"[:200]) from error
        except ssl.SSLError as error:
            raise KeysUnavailable(f"TLS fails: {error.reason or error}"[:200]) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or type(error).__name__
            raise KeysUnavailable(f"it cannot be asked: {said}"[:200]) from error

    def _session(self) -> aiohttp.ClientSession:
        """Return one that keeps nothing: keys are fetched three times an hour."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._context(), force_close=True, socket_factory=self._socket
            ),
            headers={
                "User-Agent": f"isthmus/{version.VERSION}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _context(self) -> ssl.SSLContext:
        made = ssl.create_default_context()
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._more_roots is not None and self._more_roots.is_file():
            made.load_verify_locations(self._more_roots)
        return made

    def _socket(self, address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        """Open the socket of a connection; the one place that knows where it really leads."""
        family, kind, protocol, _, place = address
        why = self._forbidden(str(place[0]))
        if why:
            raise OSError(0, f"its address may not be asked: {why}")
        return socket.socket(family, kind, protocol)

    async def _discovered(self, session: aiohttp.ClientSession, issuer: str) -> str:
        text = await self._got(session, issuer.rstrip("/") + DISCOVERY)
        try:
            found = json.loads(text)
        except RecursionError:
            raise KeysUnavailable("the issuer's configuration is nested too deeply") from None
        uri = found.get("jwks_uri") if isinstance(found, dict) else None
        if not isinstance(uri, str):
            raise KeysUnavailable("the issuer's configuration says no `jwks_uri`")
        return uri

    async def _got(self, session: aiohttp.ClientSession, uri: str) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            _check(uri)
            async with session.get(uri, allow_redirects=False) as answer:
                if answer.status in MOVED and answer.headers.get("location"):
                    uri = urllib.parse.urljoin(uri, answer.headers["location"])
                    continue
                if answer.status != OK:
                    raise KeysUnavailable(f"it answers with status {answer.status}")
                return await _body(answer)
        raise KeysUnavailable(f"it leads elsewhere more than {MOST_REDIRECTS} times")


def _check(uri: str) -> None:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise KeysUnavailable("it leads to what is no plain address of HTTPS")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise KeysUnavailable("the answer is compressed, though nobody asked for that")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > MOST_BYTES:
            raise KeysUnavailable(f"the answer is longer than {MOST_BYTES} bytes")
    return bytes(body)
