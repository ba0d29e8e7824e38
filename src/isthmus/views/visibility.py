"""Who may know of a service, and by which names it is asked for.

Source: spec sections 4.7, 8.3 and 8.6.
"""

import functools
from collections.abc import Iterator, Sequence

from isthmus.mesh.services import Service

EVERYWHERE = "*"
OWN_NAMESPACE = "."


def is_exported(export_to: Sequence[str], *, owner: str, client: str) -> bool:
    """Say whether what `owner`'s namespace exports may be known in `client`'s.

    Nothing listed means everywhere; `~` alone means nowhere.
    """
    if not export_to:
        return True
    return any(
        target in {EVERYWHERE, client} or (target == OWN_NAMESPACE and owner == client)
        for target in export_to
    )


def is_visible(service: Service, *, client: str) -> bool:
    """Say whether clients in a namespace may know of a service."""
    return is_exported(service.export_to, owner=service.key.namespace, client=client)


def matches_host(pattern: str, *, host: str) -> bool:
    """Say whether a host pattern (`*`, `*.suffix` or a name) covers `host`."""
    if pattern == EVERYWHERE:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern == host


def patterns_of(host: str) -> Iterator[str]:
    """Yield all patterns that cover `host`, the most specific first."""
    yield host
    labels = host.removeprefix("*.").split(".")
    for index in range(1, len(labels)):
        yield f"*.{'.'.join(labels[index:])}"
    yield EVERYWHERE


def domains_of(service: Service, *, client: str, addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which a client in a namespace may ask for a service.

    They end with `addresses`, which are the service's own as the client sees them.
    """
    literal = [f"[{address}]" if ":" in address else address for address in addresses]
    if service.has_full_name_only:
        dotted = [] if "*" in service.hostname else [f"{service.hostname}."]
        return (str(service.hostname), *dotted, *literal)
    name, namespace = service.key.name, service.key.namespace
    return _domains(
        str(service.hostname), name, namespace, tuple(literal), is_own=namespace == client
    )


@functools.lru_cache(maxsize=65536)
def _domains(
    host: str, name: str, namespace: str, literal: tuple[str, ...], *, is_own: bool
) -> tuple[str, ...]:
    """Return the names of a usual service, which those of all other namespaces share."""
    full = [host, f"{host}."]
    short = [f"{name}.{namespace}", f"{name}.{namespace}.svc"]
    if is_own:
        short.insert(0, name)
    # Pods of a service without an address have names below each of its own.
    wildcard = [] if literal else [f"*.{each}" for each in (*full, *short)]
    return (*full, *short, *literal, *wildcard)
