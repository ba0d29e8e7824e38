"""How names are completed: short hosts by the namespace of the object that says them.

Source: spec sections 2.4, 3.5 and 8.2.
"""

from isthmus.mesh.identities import Hostname
from isthmus.mesh.services import DERIVED_DOMAIN, ServiceKey


def service_host(name: str, namespace: str, domain: str) -> Hostname:
    """Return the host of a Kubernetes Service."""
    return Hostname(f"{name}.{namespace}.svc.{domain}")


def qualified(host: str, *, namespace: str, domain: str) -> Hostname:
    """Complete a host that has no dots; anything else is complete. A final dot is dropped."""
    plain = host.rstrip(".").lower()
    if not plain or "." in plain or "*" in plain:
        return Hostname(plain)
    return service_host(plain, namespace, domain)


def split_host(host: str, *, domain: str) -> tuple[str, str] | None:
    """Return name and namespace of the Service of a host, or None when it is no Service's."""
    suffix = f".svc.{domain}"
    parts = host.removesuffix(suffix).split(".")
    if not host.endswith(suffix) or len(parts) != 2 or not all(parts):
        return None
    return parts[0], parts[1]


def split_derived(host: str) -> ServiceKey | None:
    """Return which Services a host `<name>.<namespace>.mesh.internal` is derived from, if any."""
    parts = host.removesuffix(f".{DERIVED_DOMAIN}").split(".")
    if not host.endswith(f".{DERIVED_DOMAIN}") or len(parts) != 2 or not all(parts):
        return None
    return ServiceKey(parts[1], parts[0])


def matches(pattern: str, host: str) -> bool:
    """Whether a host is one of `pattern`: itself, `*`, or `*.suffix`."""
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and host != pattern[1:]
    return pattern == host


def specificity(pattern: str) -> tuple[bool, int]:
    """Order patterns: an exact one is above any wildcard, a longer wildcard above a shorter."""
    return (not pattern.startswith("*"), len(pattern))
