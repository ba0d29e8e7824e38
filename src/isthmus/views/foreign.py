"""TLS that clients start to servers for which others than the mesh's authority vouch.

A client never speaks plainly where a rule demands TLS, and never to a server that nobody vouches
for, unless the rule says that it does not matter.

Source: spec section 8.2; Istio's API for DestinationRule.
"""

from dataclasses import dataclass

from isthmus.mesh.services import Service
from isthmus.mesh.traffic import Encryption


@dataclass(frozen=True, slots=True)
class ForeignTls:
    """What a client shows and whom it trusts; files are on the proxy's disk.

    Attributes:
        authorities: File with who may sign for the server; empty for the operating system's.
        certificate: Files with the client's certificate and key; None shows nothing.
        verifies: Whether it matters who signed for the server, and for which names.
        asks_as_requested: Whether each request's host is the server's name, because a service
            with a star in its name has none of its own.
    """

    authorities: str = ""
    certificate: tuple[str, str] | None = None
    verifies: bool = True
    asks_as_requested: bool = False


def of(service: Service, said: Encryption, *, is_http: bool) -> ForeignTls:
    """Return what TLS a rule makes clients of a service start."""
    return ForeignTls(
        said.authorities,
        (said.certificate, said.key) if said.certificate else None,
        said.verifies,
        asks_as_requested=is_http and not said.sni and "*" in _host(service),
    )


def server_name(service: Service, said: Encryption) -> str:
    """Return the name that clients ask for; empty where requests or nothing tell."""
    host = _host(service)
    return said.sni or ("" if "*" in host else host)


def names_of(service: Service, said: Encryption) -> tuple[str, ...]:
    """Return the names that the server may have; nothing where requests tell, or all are right.

    A name that begins with a star stands for all that end so.
    """
    if not said.verifies:
        return ()
    if said.names:
        return said.names
    told = service.entry.identities if service.entry is not None else ()
    return told or (said.sni or _host(service),)


def _host(service: Service) -> str:
    return service.alias_of or str(service.hostname)
