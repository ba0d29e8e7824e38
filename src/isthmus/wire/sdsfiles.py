"""Secrets that are files on the proxy's disk, by the names that Istio's agents give them.

    file-cert:<chain>~<key>   a client's certificate with its key
    file-root:<roots>         who may sign for a server; `system` stands for the system's roots

Files that are missing or empty are no secret: a proxy without one makes no connection. Refuses to
know what is in them: the proxy takes what fits.
"""

import hashlib
import pathlib
import secrets
from typing import Final

from isthmus.base import logs
from isthmus.wire import sds

CERTIFICATE: Final = "file-cert:"
ROOTS: Final = "file-root:"
SYSTEM: Final = "system"
SYSTEM_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
LARGEST_BYTES: Final = 4 * 1024 * 1024

_LOG = logs.Log("isthmus.sds")
# Versions are shown: nobody may learn by trying whether he has guessed a key.
_SALT: Final = secrets.token_bytes(16)


def read(name: str) -> sds.Secret | None:
    """Return the secret of a name, as its files are now; None for any other name."""
    if name.startswith(ROOTS):
        asked = name.removeprefix(ROOTS)
        for path in SYSTEM_ROOTS if asked == SYSTEM else (asked,):
            if found := _content(path):
                return sds.roots(name, roots_pem=found, version=_version(found))
        return None
    chain, separator, key = name.removeprefix(CERTIFICATE).partition("~")
    if not name.startswith(CERTIFICATE) or not separator:
        return None
    found, with_key = _content(chain), _content(key)
    if not found or not with_key:
        return None
    version = _version(found + with_key)
    return sds.certificate(name, chain_pem=found, key_pem=with_key, version=version)


def _content(path: str) -> str:
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(LARGEST_BYTES).decode()
    except (OSError, ValueError) as error:
        _LOG.debug("no file of a certificate", path=path, reason=str(error))
        return ""


def _version(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=12, key=_SALT).hexdigest()
