"""Which ports the pods of a cluster serve, as its Services and EndpointSlices say.

Decides that system namespaces do not count, and neither does anything but TCP: nothing else
crosses between clusters. Refuses to know what is done with the answer.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from isthmus.base import errors
from isthmus.cli import options
from isthmus.gke import plans, wishes
from isthmus.gke import ports as port_sets
from isthmus.kube import client as kube_client
from isthmus.kube import kinds

_SYSTEM: Final = ("kube-", "gke-", "gmp-")
_SYSTEM_NAMES: Final = frozenset({"istio-system", "asm-system", "config-management-system"})
_API_SERVER: Final = ("default", "kubernetes")
_SERVICE_LABEL: Final = "kubernetes.io/service-name"


async def served(asked: wishes.Wishes, *, kubeconfig: str | None) -> dict[str, plans.Served]:
    """Return what each cluster's pods serve: what the file says, else what the cluster says."""
    found = {}
    for member in asked.members:
        if member.ports:
            found[member.title] = plans.Served(member.ports)
        else:
            found[member.title] = await _looked_up(member, kubeconfig)
    return found


async def _looked_up(member: wishes.Member, kubeconfig: str | None) -> plans.Served:
    try:
        reached = options.accessed(kubeconfig, context=member.context)
        async with options.client_of(reached) as client:
            services = await client.list_(kinds.SERVICE)
            slices = await client.list_(kinds.ENDPOINT_SLICE)
    except errors.IsthmusError as error:
        return plans.Served(missing=error.happened)
    names = names_by_port(services, slices)
    if not names:
        return plans.Served(missing=f"context `{member.context}` shows no service")
    return plans.Served(
        port_sets.united((port, port) for port in names),
        tuple((port, ", ".join(sorted(names[port]))) for port in sorted(names)),
    )


def names_by_port(
    services: Iterable[kube_client.Obj], slices: Iterable[kube_client.Obj]
) -> dict[int, set[str]]:
    """Return, for each TCP port that pods serve, the services behind which they do."""
    found: dict[int, set[str]] = {}
    for port, name in [*_from_services(services), *_from_slices(slices)]:
        found.setdefault(port, set()).add(name)
    return found


def _from_services(services: Iterable[kube_client.Obj]) -> Iterator[tuple[int, str]]:
    for service in services:
        spec = service.get("spec") or {}
        where = _key(service, str(service["metadata"].get("name", "")))
        if not spec.get("selector") or not _counts(where):
            continue
        for port in spec.get("ports") or ():
            # A name is resolved by the pods themselves: the slices have the number.
            target = port.get("targetPort", port.get("port"))
            if _is_tcp(port) and isinstance(target, int):
                yield target, "/".join(where)


def _from_slices(slices: Iterable[kube_client.Obj]) -> Iterator[tuple[int, str]]:
    for each in slices:
        labels = each["metadata"].get("labels") or {}
        where = _key(each, str(labels.get(_SERVICE_LABEL, "")))
        if not where[1] or not _counts(where) or each.get("addressType") == "FQDN":
            continue
        for port in each.get("ports") or ():
            if _is_tcp(port) and isinstance(port.get("port"), int):
                yield port["port"], "/".join(where)


def _key(found: kube_client.Obj, name: str) -> tuple[str, str]:
    return (str(found["metadata"].get("namespace", "")), name)


def _counts(where: tuple[str, str]) -> bool:
    namespace = where[0]
    return (
        where != _API_SERVER
        and not namespace.startswith(_SYSTEM)
        and namespace not in _SYSTEM_NAMES
    )


def _is_tcp(port: Mapping[str, Any]) -> bool:
    return (port.get("protocol") or "TCP") == "TCP"
