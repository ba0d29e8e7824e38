"""What `isthmus multicluster check` learns of each cluster, through its API server alone.

Nothing is sent from where the command runs to any gateway: control planes look for themselves, and
commands in their pods.

Source: spec sections 2.6, 7.7 and 9.2.
"""

import asyncio
import base64
import contextlib
import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography import x509

from isthmus.base import clock, errors
from isthmus.ca import authority, pem, refusals
from isthmus.cli import asking, multicluster_trust
from isthmus.install import exposing
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, problems
from isthmus.mesh import trust

PAGE: Final = "/debug/probez"
TOLD_PAGE: Final = "/debug/peerz"
CATCH_UP_S: Final = 4.0
"""So long may a control plane be behind with what it is told before that is worth telling."""

LOOK_S, PATIENCE_S = 0.5, 60.0
"""How often a control plane is asked whether it has looked, and for how long."""

MTLS_PORT: Final = 15443
CLASSES: Final = frozenset({"istio-eastwest", "istio-east-west"})
ROOTS: Final = "istio-ca-root-cert"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Door:
    """A gateway by which other clusters come in.

    Attributes:
        problem: Why it is not up; empty when it is.
    """

    title: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of connecting to a port from inside a cluster."""

    address: str
    port: int
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one cluster.

    Attributes:
        fault: Why nothing is known; None when something is.
        planes: Pods of control planes, and their versions.
        environment: Of the control plane.
        signer: What signs there, and what vouches for it, in order; empty when nobody knows.
        believed: Certificates by which identities are believed there, by trust domain; the empty
            one stands for all.
        node_proxies: How many there should be, and how many are ready; None without any.
        offset_s: How far the control plane's clock is ahead of ours.
        ways: From there to others, as its control plane found them.
        known: The clusters that the control plane knows, and how well.
        told: Control planes of others that hear it, and how far they have come; None when nobody
            can say.
        findings: What the control plane says is wrong.
    """

    context: str
    fault: errors.IsthmusError | None = None
    cluster: str = ""
    network: str = ""
    domain: str = ""
    planes: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    signer: tuple[x509.Certificate, ...] = ()
    believed: Mapping[str, tuple[x509.Certificate, ...]] = field(default_factory=dict)
    doors: tuple[Door, ...] = ()
    node_proxies: tuple[int, int] | None = None
    offset_s: float = 0.0
    ways: tuple[Json, ...] = ()
    known: tuple[Json, ...] = ()
    told: tuple[Json, ...] | None = None
    findings: tuple[Json, ...] = ()

    @property
    def title(self) -> str:
        """How people call the cluster."""
        return self.cluster or self.context


async def gathered(client: kube_client.Client, *, context: str, system: str, looks: bool) -> Facts:
    """Return what is known of a cluster; with `looks`, its control plane looks for ways first."""
    try:
        return await _gathered(client, Facts(context), system=system, looks=looks)
    except errors.IsthmusError as error:
        return Facts(context, error)


async def _gathered(client: kube_client.Client, known: Facts, *, system: str, looks: bool) -> Facts:
    values = await multicluster_trust.values_of(client, system)
    multi = (values.get("global") or {}).get("multiCluster") or {}
    namespace = await client.find(kinds.NAMESPACE, system) or {}
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    known = replace(
        known,
        cluster=str(multi.get("clusterName") or ""),
        network=str(labels.get(exposing.NETWORK_LABEL) or ""),
        domain=str(await multicluster_trust.domain_of(client, system)),
        environment=await _environment(client, system),
        signer=await _signer(client, system),
        believed=await _believed(client, system),
        doors=(*await _gateways(client), *await _services(client)),
        node_proxies=await _node_proxies(client, system),
    )
    try:
        return await _asked(client, known, system=system, looks=looks)
    except errors.IsthmusError as error:
        return replace(known, fault=error)


# --- objects


async def _listed(client: kube_client.Client, kind: kinds.Kind, **query: str) -> list[Any]:
    try:
        return await client.list_(kind, **query)
    except problems.ApiError as error:
        if error.is_missing:
            return []
        raise


async def _environment(client: kube_client.Client, system: str) -> Mapping[str, str]:
    found = await _listed(client, kinds.DEPLOYMENT, namespace=system, labels="app=istiod")
    containers = [
        container
        for one in found
        for container in one["spec"]["template"]["spec"].get("containers") or ()
    ]
    return {
        str(one["name"]): str(one.get("value") or "")
        for container in containers
        for one in container.get("env") or ()
    }


async def _signer(client: kube_client.Client, system: str) -> tuple[x509.Certificate, ...]:
    secret = await client.find(kinds.SECRET, trust.SECRET, namespace=system) or {}
    held = secret.get("data") or {}
    names = (authority.CERTIFICATE, authority.CHAIN)
    texts = [base64.b64decode(held.get(name) or "").decode(errors="replace") for name in names]
    return _read(texts)


async def _believed(
    client: kube_client.Client, system: str
) -> Mapping[str, tuple[x509.Certificate, ...]]:
    roots = await client.find(kinds.CONFIG_MAP, ROOTS, namespace=system) or {}
    found = {"": _read([str((roots.get("data") or {}).get(authority.ROOTS) or "")])}
    for one in await _listed(client, kinds.CONFIG_MAP, namespace=system, labels=trust.DOMAIN_LABEL):
        domain = str(one["metadata"]["labels"][trust.DOMAIN_LABEL])
        listed = _read([str((one.get("data") or {}).get(trust.BUNDLE) or "")])
        found[domain] = (*found.get(domain, ()), *listed)
    return found


def _read(texts: Iterable[str]) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for text in texts:
        with contextlib.suppress(refusals.CaRefusal):
            found += pem.certificates(text, file="certificates") if text.strip() else ()
    return tuple(found)


async def _gateways(client: kube_client.Client) -> list[Door]:
    return [
        door_of(one)
        for one in await _listed(client, kinds.KUBERNETES_GATEWAY)
        if one["spec"].get("gatewayClassName") in CLASSES
    ]


def door_of(gateway: Json) -> Door:
    """Return what a Gateway says of itself."""
    metadata, status = gateway["metadata"], gateway.get("status") or {}
    conditions: list[Json] = list(status.get("conditions") or ())
    programmed: Json = next((one for one in conditions if one["type"] == "Programmed"), {})
    problem = "" if programmed.get("status") == "True" else str(programmed.get("message") or "")
    if programmed.get("status") != "True" and not problem:
        problem = "no control plane has said that it runs"
    return Door(
        f"{metadata['namespace']}/{metadata['name']}",
        exposing.addresses_of(gateway),
        tuple(sorted(int(one["port"]) for one in gateway["spec"].get("listeners") or ())),
        problem,
    )


async def _services(client: kube_client.Client) -> list[Door]:
    """Return gateways that only a Service tells of, as those for sidecars."""
    found = []
    for one in await _listed(client, kinds.SERVICE, labels=exposing.NETWORK_LABEL):
        ports = {int(port["port"]) for port in one["spec"].get("ports") or ()}
        if MTLS_PORT not in ports:
            continue
        balancer = (one.get("status") or {}).get("loadBalancer") or {}
        addresses = tuple(
            str(each.get("ip") or each.get("hostname"))
            for each in balancer.get("ingress") or one["spec"].get("externalIPs") or ()
            if isinstance(each, dict)
        )
        title = f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        problem = "" if addresses else "its load balancer has no address yet"
        found.append(Door(title, addresses, (MTLS_PORT,), problem))
    return found


async def _node_proxies(client: kube_client.Client, system: str) -> tuple[int, int] | None:
    found = await client.find(kinds.DAEMON_SET, "ztunnel", namespace=system)
    if found is None:
        return None
    status = found.get("status") or {}
    return int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)


# --- control planes


async def _asked(client: kube_client.Client, known: Facts, *, system: str, looks: bool) -> Facts:
    before = clock.SystemClock().now()
    answers = await asking.control_planes(client, PAGE, namespace=system)
    after = clock.SystemClock().now()
    versions = [
        (one.istiod, (await _version(client, one.istiod, system=system))) for one in answers
    ]
    known = replace(
        known,
        cluster=known.cluster or str(answers[0].document.get("cluster") or ""),
        planes=tuple(versions),
        offset_s=offset_s(answers[0].document.get("now"), before=before, after=after),
    )
    if not looks:
        return known
    pod = answers[0].istiod
    return replace(
        known,
        ways=tuple((await _looked(client, pod, system=system)).get("ways") or ()),
        known=tuple(await _page(client, "/debug/clusterz", pod, system=system)),
        told=await _told(client, system=system),
        findings=tuple(await _page(client, "/debug/findings", pod, system=system)),
    )


async def _told(client: kube_client.Client, *, system: str) -> tuple[Json, ...] | None:
    """Return whom all control planes tell; who is behind gets time to catch up."""
    time = clock.SystemClock()
    began = time.monotonic()
    while True:
        try:
            answers = await asking.control_planes(client, TOLD_PAGE, namespace=system)
        except errors.IsthmusError:
            return None  # It is of a version that cannot say.
        rows: list[Json] = [row for one in answers for row in one.document]
        is_late = time.monotonic() - began > CATCH_UP_S
        if is_late or not any(row["behindSeconds"] for row in rows):
            return tuple(rows)
        await time.sleep(LOOK_S)


def offset_s(said: object, *, before: datetime.datetime, after: datetime.datetime) -> float:
    """Return how far a clock is ahead that was read between two moments; 0 within them."""
    try:
        there = datetime.datetime.fromisoformat(str(said))
    except ValueError:
        return 0.0
    if there < before:
        return (there - before).total_seconds()
    return max((there - after).total_seconds(), 0.0)


async def _version(client: kube_client.Client, pod: str, *, system: str) -> str:
    said = await asking.text(
        client, "/version", namespace=system, pod=pod, programs=asking.CONTROL_PLANE
    )
    return said.partition("-")[0].strip()


async def _page(client: kube_client.Client, page: str, pod: str, *, system: str) -> Any:  # noqa: ANN401  # a JSON document
    return await asking.asked(
        client, page, namespace=system, pod=pod, programs=asking.CONTROL_PLANE
    )


async def _looked(client: kube_client.Client, pod: str, *, system: str) -> Json:
    """Return what a control plane finds when it looks for ways now."""
    began = clock.SystemClock().monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            document: Json = await _page(client, PAGE, pod, system=system)
            age_s = document.get("ageSeconds")
            # What was found before somebody asked may be about another state of things.
            passed_s = clock.SystemClock().monotonic() - began
            if not document.get("isRunning") and age_s is not None and age_s < passed_s:
                return document
            await clock.SystemClock().sleep(LOOK_S)


async def reached(
    client: kube_client.Client, pod: str, *, system: str, address: str, port: int
) -> Reached:
    """Return what becomes of a connection from inside a control plane's pod."""
    reason = "the control plane's image has no program for that"
    for program in asking.CONTROL_PLANE:
        try:
            done = await client.exec(system, pod, [*program, "reach", address, str(port)])
        except problems.ApiError as error:
            reason = error.message
            continue
        if done.code == 0:
            said = json.loads(done.stdout)
            return Reached(address, port, str(said["found"]), str(said["fix"]))
        if done.code not in asking.NOT_FOUND:
            reason = done.stderr.decode(errors="replace").strip()[:200] or reason
            break
    return Reached(address, port, f"could not be tried: {reason}", "update the control plane")
