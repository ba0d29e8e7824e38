"""Gathers what nodes' proxies saw of requests, where pods have no proxies of their own.

A node's proxy sees connections and no requests; so each request has a connection of its own, and one
cluster sends after the other. What a proxy wrote between the first request and the last is theirs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from isthmus.base import clock
from isthmus.install import tunnel_lines, verification
from isthmus.kube import client as kube_client
from isthmus.kube import kinds

MARK: Final = "ambient.istio.io/redirection"
PROXIES: Final = "app=ztunnel"
DEADLINE_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.2
TAIL: Final = 20_000
TLS: Final = "TLSv1.3"
"""No tunnel has another."""

Obj = dict[str, Any]
Clusters = Mapping[str, kube_client.Client]


def takes_part(pod: Obj) -> bool:
    """Say whether a pod's node takes its traffic."""
    return (pod["metadata"].get("annotations") or {}).get(MARK) == "enabled"


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs of nodes' proxies.

    Attributes:
        began: By cluster, namespace and name of a proxy, when its last tunnel began so far.
    """

    clusters: Clusters
    began: Mapping[tuple[str, str, str], str]

    async def since(self) -> list[tunnel_lines.Ended]:
        """Return the tunnels that began since."""
        return [
            one
            for (cluster, namespace, name), after in self.began.items()
            for one in tunnel_lines.read(
                (await _log(self.clusters[cluster], namespace, name)).splitlines(), after=after
            )
        ]


async def begun(clusters: Clusters) -> Logs:
    """Return the logs from this moment on."""
    found = {}
    for cluster, client in clusters.items():
        for pod in await client.list_(kinds.POD, labels=PROXIES):
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            log = await _log(client, namespace, name)
            found[cluster, namespace, name] = tunnel_lines.last(log.splitlines())
    return Logs(clusters, found)


async def _log(client: kube_client.Client, namespace: str, name: str) -> str:
    return await client.logs(namespace, name, tail=TAIL)


async def seen(
    logs: Logs,
    answers: Sequence[verification.Answer],
    destinations: Sequence[verification.Destination],
    *,
    own_address: str,
    gateways: Mapping[str, str],
    system_clock: clock.Clock,
) -> tuple[list[verification.Passage], list[tuple[str, verification.Passage]]]:
    """Return on which ways requests left, and as whose they arrived at which pods.

    Args:
        logs: From before the first request on.
        answers: What was answered.
        destinations: The pods that may have.
        own_address: Of the pod that has asked.
        gateways: External address of each gateway, and its cluster.
        system_clock: Says how long to wait for what is still to be written.
    """
    by_address = {one.address: one for one in destinations}
    expected = sum(1 for one in answers if one.status == verification.OK)
    deadline = system_clock.monotonic() + DEADLINE_S
    while True:
        ended = [one for one in await logs.since() if one.pod in by_address]
        if len(ended) >= expected or system_clock.monotonic() > deadline:
            break
        await system_clock.sleep(LOOK_AGAIN_S)
    before = {cluster: address for address, cluster in gateways.items()}
    passages, arrivals = [], []
    for number, one in enumerate(ended):
        pod = by_address[one.pod]
        far = one.caller != own_address and pod.cluster in before
        upstream = f"{before[pod.cluster]}:15008" if far else f"{one.pod}:15008"
        request = str(number)
        passages.append(verification.Passage(request, is_source=True, upstream=upstream))
        arrived = verification.Passage(request, is_source=False, peer=one.peer, tls=TLS)
        arrivals.append((pod.pod, arrived))
    return passages, _answered_only(arrivals, answers)


def _answered_only(
    arrivals: Sequence[tuple[str, verification.Passage]], answers: Sequence[verification.Answer]
) -> list[tuple[str, verification.Passage]]:
    """Leave out pods from which no answer came: others may call meanwhile."""
    named = Counter(name for name, _ in arrivals)
    answered = {name for name in named if any(name in one.body for one in answers)}
    return [one for one in arrivals if one[0] in answered]
