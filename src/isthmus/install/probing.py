"""Sends real requests from a client pod in every cluster and gathers what was seen of them.

Works through the API servers alone: commands in pods, and logs of their proxies.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.base import clock
from isthmus.install import ambient_probing, verification
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, problems
from isthmus.mesh import networks

PROXY = "istio-proxy"
CLIENTS = ("sleep", "curl")
LOGS_DEADLINE_S = 30.0
LOOK_AGAIN_S = 0.1
BATCH = 25
ANSWER_S = 10.0
ASKING_DEADLINE_S = 180.0
STANDARD_OUTPUT = 1
BETWEEN = (networks.MTLS_PORT, networks.HBONE_PORT)
"""Ports of gateways between networks."""

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """The service that is asked, and how often from each cluster.

    Attributes:
        host: The name by which it is asked for, if not its own.
    """

    namespace: str = "sample"
    service: str = "helloworld"
    port: int = 5000
    path: str = "/hello"
    requests: int = 100
    host: str = ""

    def url(self, first: int, last: int) -> str:
        """The address that clients use; curl counts `n` up."""
        host = self.host or f"{self.service}.{self.namespace}"
        return f"http://{host}:{self.port}{self.path}?n=[{first}-{last}]"


async def verify(
    clusters: Mapping[str, kube_client.Client], target: Target, *, system_clock: clock.Clock
) -> verification.Report:
    """Send requests from each of `clusters` (by name) and judge what happened."""
    destinations = [
        destination
        for name, client in clusters.items()
        for destination in await _destinations(name, client, target)
    ]
    gateways = {
        address: name
        for name, client in clusters.items()
        for address in await _gateway_addresses(client)
    }
    one_by_one = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        probes = [
            group.create_task(
                _Probe(name, clusters, target, system_clock, one_by_one).run(
                    destinations, gateways
                ),
                name=f"verify from {name}",
            )
            for name in clusters
        ]
    return verification.report(
        [probe.result() for probe in probes], destinations=destinations, gateways=gateways
    )


async def _destinations(
    name: str, client: kube_client.Client, target: Target
) -> list[verification.Destination]:
    service = await client.find(kinds.SERVICE, target.service, namespace=target.namespace)
    selector = ((service or {}).get("spec") or {}).get("selector") or {"app": target.service}
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    pods = await client.list_(kinds.POD, namespace=target.namespace, labels=labels)
    return [
        verification.Destination(
            cluster=name,
            pod=pod["metadata"]["name"],
            version=pod["metadata"].get("labels", {}).get("version", ""),
            address=pod["status"].get("podIP", ""),
        )
        for pod in pods
        if _is_ready(pod)
    ]


def _is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


async def _gateway_addresses(client: kube_client.Client) -> list[str]:
    services = await client.list_(kinds.SERVICE)
    return [
        ingress.get("ip") or ingress.get("hostname", "")
        for service in services
        if service["spec"].get("type") == "LoadBalancer"
        and any(port["port"] in BETWEEN for port in service["spec"].get("ports") or [])
        for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    ]


class _Probe:
    """The requests from one cluster."""

    def __init__(
        self,
        source: str,
        clusters: Mapping[str, kube_client.Client],
        target: Target,
        system_clock: clock.Clock,
        one_by_one: asyncio.Lock,
    ) -> None:
        self._one_by_one = one_by_one
        self._source = source
        self._clusters = clusters
        self._client = clusters[source]
        self._target = target
        self._clock = system_clock
        self._nonce = secrets.token_hex(8)
        self._complaint = ""

    async def run(
        self, destinations: Sequence[verification.Destination], gateways: Mapping[str, str]
    ) -> verification.Observation:
        """Send, then gather logs until every answer is accounted for or time is up."""
        asking = await self._client_pod()
        if asking is None:
            return verification.Observation(
                self._source,
                fault=f"there is no ready client pod in namespace `{self._target.namespace}`",
                hint=(
                    f"kubectl --context {self._source} -n {self._target.namespace} apply -f "
                    "samples/sleep/sleep.yaml"
                ),
            )
        pod, container = asking["metadata"]["name"], asking["metadata"]["labels"]["app"]
        if ambient_probing.takes_part(asking):
            async with self._one_by_one:
                return await self._without_sidecar(asking, destinations, gateways)
        answers = await self._ask(pod, container)
        good = sum(1 for answer in answers if answer.status == verification.OK)
        passages = await self._passages(self._client, pod, good)
        arrivals = await self._arrivals(destinations, answers)
        plaintext = [
            (address, await self._answers_plaintext(pod, container, address))
            for address, cluster in gateways.items()
            if cluster != self._source
        ]
        return verification.Observation(
            self._source, tuple(answers), tuple(passages), tuple(arrivals), tuple(plaintext)
        )

    async def _without_sidecar(
        self,
        asking: Obj,
        destinations: Sequence[verification.Destination],
        gateways: Mapping[str, str],
    ) -> verification.Observation:
        """Send from a pod whose node's proxy takes its calls; they are seen where they end."""
        pod, container = asking["metadata"]["name"], asking["metadata"]["labels"]["app"]
        logs = await ambient_probing.begun(self._clusters)
        answers = await self._ask(pod, container, "-H", "Connection: close")
        passages, arrivals = await ambient_probing.seen(
            logs,
            answers,
            destinations,
            own_address=asking["status"]["podIP"],
            gateways=gateways,
            system_clock=self._clock,
        )
        return verification.Observation(
            self._source, tuple(answers), tuple(passages), tuple(arrivals), prefers_near=True
        )

    async def _client_pod(self) -> Obj | None:
        pods = await self._client.list_(
            kinds.POD,
            namespace=self._target.namespace,
            labels=f"app in ({','.join(CLIENTS)})",
        )
        for pod in pods:
            if _is_ready(pod):
                return pod
        return None

    async def _ask(self, pod: str, container: str, *options: str) -> list[verification.Answer]:
        """Ask in batches until all is asked or time is up; what is missing went unanswered."""
        deadline = self._clock.monotonic() + ASKING_DEADLINE_S
        said, wanted = "", self._target.requests
        for first in range(1, wanted + 1, BATCH):
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                break
            url = self._target.url(first, min(first + BATCH - 1, wanted))
            argv = [*options, url]
            said += await self._said(pod, container, argv, left_s, is_first=not said)
        return _answers(said, wanted, self._complaint)

    async def _said(
        self, pod: str, container: str, asked: Sequence[str], limit_s: float, *, is_first: bool
    ) -> str:
        written, complaint = bytearray(), bytearray()

        def take(stream: int, content: bytes) -> None:
            (written if stream == STANDARD_OUTPUT else complaint).extend(content)

        nonce = f"{verification.HEADER}: {self._nonce}"
        argv = ["curl", "-sS", "-m", f"{ANSWER_S:g}", "-H", nonce, "-w", r"\n%{http_code}\n"]
        try:
            _ = await self._client.exec(
                self._target.namespace,
                pod,
                [*argv, *asked],
                container=container,
                timeout_s=limit_s,
                on_output=take,
            )
        except problems.Unreachable:
            # Slow destinations end the batch, not the verification; an API server that is gone
            # has answered nothing at all.
            if is_first and not written:
                raise
        self._complaint = self._complaint or complaint.decode(errors="replace").partition("\n")[0]
        return written.decode(errors="replace")

    async def _passages(
        self, client: kube_client.Client, pod: str, expected: int
    ) -> list[verification.Passage]:
        deadline = self._clock.monotonic() + LOGS_DEADLINE_S
        while True:
            log = await client.logs(self._target.namespace, pod, PROXY, tail=5000)
            found = [verification.passage_of(line, self._nonce) for line in log.splitlines()]
            seen = [passage for passage in found if passage is not None]
            if len(seen) >= expected or self._clock.monotonic() > deadline:
                return seen
            await self._clock.sleep(LOOK_AGAIN_S)

    async def _arrivals(
        self,
        destinations: Sequence[verification.Destination],
        answers: Sequence[verification.Answer],
    ) -> list[tuple[str, verification.Passage]]:
        found = []
        for destination in destinations:
            expected = sum(1 for answer in answers if destination.pod in answer.body)
            if expected:
                client = self._clusters[destination.cluster]
                passages = await self._passages(client, destination.pod, expected)
                found += [(destination.pod, passage) for passage in passages]
        return found

    async def _answers_plaintext(self, pod: str, container: str, address: str) -> bool:
        port = networks.MTLS_PORT
        written = await self._client.exec(
            self._target.namespace,
            pod,
            ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}",
             f"http://{address}:{port}{self._target.path}"],
            container=container,
            timeout_s=20,
        )  # fmt: skip
        return written.stdout.strip() not in {b"000", b""}


def _answers(text: str, expected: int, complaint: str) -> list[verification.Answer]:
    """Read what curl printed; to what was not answered belongs what curl said of it."""
    found: list[verification.Answer] = []
    body: list[str] = []
    for line in text.splitlines():
        if len(line) == 3 and line.isdigit():
            found.append(verification.Answer(int(line), "\n".join(body) or complaint))
            body = []
        elif line:
            body.append(line)
    return found + [verification.Answer(0, complaint)] * (expected - len(found))
