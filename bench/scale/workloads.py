"""What happens to a fleet, one kind of event at a time, and what is found of it.

A delay runs from the moment at which an API server writes an event to the moment at which a
client has decoded a response that holds what came of it. Nothing in a message tells the time:
what is waited for is an address, a name or a word that was never there before.
"""

import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.scale import clients as client_program
from bench.scale import shapes, subject, truths

PAUSE_S: Final = 0.15
PATIENCE_S: Final = 20.0
ROLLOUT_RATE: Final = 400
ROLLOUT: Final = 1000
ENVOYS: Final = 5
ENVOYS_S: Final = 60.0
ROLLOUT_SERVICES: Final = 10
CHURNING: Final = 50
"""So many services are those whose pods are replaced at random."""

ROUND_S: Final = 20.0
ROUNDS: Final = 4
"""For so many rounds the same goes on before it is measured of what has settled."""

DRAIN_S: Final = 120.0
Found = dict[str, Any]


@dataclass
class Field:
    """A fleet in which something can happen."""

    shape: shapes.Shape
    plane: subject.Subject
    servers: subject.Companion
    clients: subject.Companion
    folder: Path
    draw: random.Random
    clusters: range
    markers: int = 0

    @property
    def sidecars(self) -> int:
        """How many clients are told of endpoints."""
        return self.shape.proxies

    @property
    def told(self) -> int:
        """How many clients are told of pods that are new, in a fleet of one network."""
        return self.shape.proxies + self.shape.nodes

    def affected(self, cluster: int) -> int:
        """Return how many clients are told of a pod by its own address."""
        if self.shape.is_flat:
            return self.shape.proxies
        return len(range(cluster, self.shape.proxies, self.shape.clusters))

    def marker(self) -> int:
        """Return a number that no event has had."""
        self.markers += 1
        return self.markers

    def pod(self, services: range) -> tuple[int, int, int]:
        """Return any pod: its cluster, service and number."""
        return (
            self.draw.choice(self.clusters),
            self.draw.choice(services),
            self.draw.randrange(self.shape.behind),
        )

    def pods(self, services: range, most: int) -> list[tuple[int, int, int]]:
        """Return some pods in any order, none of them twice."""
        everyone = [
            (cluster, service, number)
            for cluster in self.clusters
            for service in services
            for number in range(self.shape.behind)
        ]
        return self.draw.sample(everyone, min(most, len(everyone)))

    def rest(self, seconds: float) -> None:
        """Let clients answer whatever comes."""
        self.clients.ask(act="rest", seconds=seconds)

    def seen(self, count: int, happen: Callable[[], int], **look: object) -> Found:
        """Let something happen; return when `count` clients have what is looked for."""
        self.clients.ask(act="look", **look)
        cpu_s, busy_s = self.plane.cpu_s(), self.clients.cpu_s()
        self.clients.tell(act="wait", count=count, timeout_s=PATIENCE_S)
        written = happen()
        seen = self.clients.hear()["seen_ns"]
        busy_s = self.clients.cpu_s() - busy_s
        delays = [(one - written) / 1e6 for one in seen]
        self.rest(PAUSE_S)
        return {
            "delays_ms": delays,
            "lost": count - len(seen),
            "cpu_s": self.plane.cpu_s() - cpu_s,
            "busy": busy_s * 1000 / max(1.0, delays[-1]) if delays else 0.0,
            "client_s": busy_s,
        }


def told(found: Found, *, affected: float) -> Found:
    """Return what is told of one or several events of a kind."""
    delays = sorted(found["delays_ms"])
    changes = found.get("changes", 1)
    return {
        **client_program.quantiles(delays),
        "lost": found["lost"],
        "cpu_ms": found["cpu_s"] / changes * 1000,
        "cpu_us_per_proxy": found["cpu_s"] / changes / affected * 1e6,
        "client_busy_percent": round(found["busy"] / changes * 100),
        "client_us_per_proxy": found["client_s"] / changes / affected * 1e6,
    }


def singles(here: Field, *, changes: int) -> Found:
    """Take a pod out of a service, and bring it back, alone; the latter is what is measured."""
    total: Found = {
        "delays_ms": [],
        "lost": 0,
        "cpu_s": 0.0,
        "busy": 0.0,
        "client_s": 0.0,
        "changes": changes,
    }
    affected, before = 0, here.clients.ask(act="counted")
    for _ in range(changes):
        cluster, service, pod = here.pod(range(here.shape.services))
        where = {"act": "ready", "cluster": cluster, "service": service}
        own = here.servers.ask(act="members", cluster=cluster, service=service)["found"]
        address = own[pod]
        here.servers.ask(**where, unready=[pod])
        # What comes back before it was gone is no change, and nobody is told.
        name = f"outbound|80||{shapes.host(service)}"
        here.clients.ask(act="lack", marker=address, name=name, timeout_s=PATIENCE_S)
        here.rest(PAUSE_S)
        count = here.affected(cluster)
        affected += count
        found = here.seen(
            count,
            lambda where=where: here.servers.ask(**where, unready=[])["found"],  # type: ignore[misc]  # bound at once
            marker=address,
        )
        for key, value in found.items():
            total[key] += value
    after = here.clients.ask(act="counted")
    sent = (after["bytes"] - before["bytes"]) / (2 * affected)
    return {**told(total, affected=affected / changes), "bytes_per_proxy": sent}


def stream(here: Field, events: list[list[float]], *, seconds: float) -> Found:
    """Replace pods at given moments; return how late clients learnt of it.

    Bytes are those of an event, for each client that is told of it.
    """
    here.servers.ask(act="prepare", events=events)
    here.clients.ask(act="track")
    before = here.clients.ask(act="counted")
    cpu_s, busy_s = here.plane.cpu_s(), here.clients.cpu_s()
    here.servers.tell(act="begin")
    here.rest(seconds + PAUSE_S)
    while not here.servers.has_said():
        here.rest(PAUSE_S)  # Clients answer for as long as something happens.
    written = here.servers.hear()["found"]
    client_s, heard = here.clients.cpu_s() - busy_s, here.clients.ask(act="counted")
    found = here.clients.ask(
        act="arrivals",
        written=written,
        expected=here.told,
        timeout_s=DRAIN_S,
    )
    used_s = here.plane.cpu_s() - cpu_s
    after = here.clients.ask(act="counted")
    per_client = {name: (after[name] - before[name]) / here.told for name in ("messages", "bytes")}
    return {
        **found,
        "events": len(events),
        "messages_per_proxy": per_client["messages"],
        "bytes_per_proxy": per_client["bytes"] / len(events),
        "cpu_s": used_s,
        "cpu_percent": round(used_s / seconds * 100),
        "client_busy_percent": round(client_s / seconds * 100),
        "client_us_per_message": client_s / max(1, heard["messages"] - before["messages"]) * 1e6,
    }


def poisson(here: Field, *, rate: float, seconds: float) -> Found:
    """Replace pods of some services at random moments, none of them twice."""
    first = min(ROLLOUT_SERVICES, here.shape.services // 2)
    services = range(first, min(first + CHURNING, here.shape.services))
    events, at_s = list[list[float]](), 0.0
    for pod in here.pods(services, round(rate * seconds)):
        at_s += here.draw.expovariate(rate)
        events.append([at_s, *pod, here.marker()])
    return stream(here, events, seconds=at_s)


def settled(here: Field, *, rate: float, seconds: float) -> Found:
    """Replace pods at random moments, after the same has gone on for more than a minute.

    By then a control plane that tells differently of what changes all the time does so; bytes say
    whether.
    """
    for _ in range(ROUNDS):
        poisson(here, rate=rate, seconds=ROUND_S)
    return poisson(here, rate=rate, seconds=seconds)


def rollout(here: Field) -> Found:
    """Replace many pods of a few services as fast as a rollout may."""
    services = range(min(ROLLOUT_SERVICES, here.shape.services))
    events = [
        [number / ROLLOUT_RATE, *pod, here.marker()]
        for number, pod in enumerate(here.pods(services, ROLLOUT))
    ]
    return stream(here, events, seconds=len(events) / ROLLOUT_RATE)


def node(here: Field) -> Found:
    """Lose a node: all its pods are unready at once."""
    cluster = here.draw.randrange(here.shape.clusters)
    lost = here.servers.ask(act="on", cluster=cluster, node=0)["found"]
    leaving = {f"outbound|80||{shapes.host(int(one))}": some for one, some in lost.items()}

    def happen() -> int:
        return int(here.servers.ask(act="lose", cluster=cluster, node=0)["found"])

    found = here.seen(here.sidecars, happen, leaving=leaving)
    pods = sum(map(len, lost.values()))
    return {**told(found, affected=here.sidecars), "pods": pods, "services": len(lost)}


def service(here: Field) -> Found:
    """Make a service with a pod, in all clusters' sight, and delete it again."""
    number, marker = here.shape.services + 1, here.marker()
    cluster = here.shape.clusters - 1

    def add() -> int:
        asked = {"act": "add", "cluster": cluster, "service": number, "marker": marker}
        return int(here.servers.ask(**asked)["found"])

    def remove() -> int:
        asked = {"act": "remove", "cluster": cluster, "service": number}
        return int(here.servers.ask(**asked)["found"])

    # Envoys resolve a service by the names that their own cluster has: remote ones count as well.
    added = here.seen(here.affected(cluster), add, marker=shapes.marker(marker))
    name = f"outbound|80||{shapes.host(number)}"
    removed = here.seen(here.sidecars, remove, gone=name)
    return {
        "added": told(added, affected=here.affected(cluster)),
        "removed": told(removed, affected=here.sidecars),
    }


def policy(here: Field) -> Found:
    """Change one policy that all sidecars obey."""
    here.servers.ask(act="policy", cluster=0, number=here.marker())
    here.rest(1.0)
    number = here.marker()

    def happen() -> int:
        return int(here.servers.ask(act="policy", cluster=0, number=number)["found"])

    found = here.seen(here.sidecars, happen, words=f"/closed-{number}")
    return told(found, affected=here.sidecars)


def relist(here: Field, *, seconds: float) -> Found:
    """Let one API server forget what was: everything is listed anew, and nobody need be told."""
    cluster = here.shape.clusters - 1
    before, cpu_s = here.clients.ask(act="counted"), here.plane.cpu_s()
    here.servers.ask(act="expire", cluster=cluster)
    here.rest(seconds)
    after, used_s = here.clients.ask(act="counted"), here.plane.cpu_s() - cpu_s
    return {
        "cpu_s": used_s,
        "messages": after["messages"] - before["messages"],
        "bytes": after["bytes"] - before["bytes"],
        "after": singles(here, changes=2),
    }


def unreachable(here: Field) -> Found:
    """Let one API server answer nothing for a while; changes in others go on."""
    cluster = here.shape.clusters - 1
    here.servers.ask(act="reachable", cluster=cluster, is_reachable=False)
    here.rest(1.0)
    found = singles(dataclasses.replace(here, clusters=range(max(1, cluster))), changes=3)
    here.servers.ask(act="reachable", cluster=cluster, is_reachable=True)
    # What follows shall not wait until it is heard again; this does.
    own = dataclasses.replace(here, clusters=range(cluster, cluster + 1))
    return {**found, "back": singles(own, changes=1)}


def deaf(here: Field, *, changes: int) -> Found:
    """Let one client of a hundred read nothing; the others' delays are measured."""
    count = max(1, here.shape.proxies // 100)
    numbers = here.draw.sample(range(here.shape.proxies), count)
    before = here.plane.memory().pss
    here.clients.ask(act="deaf", numbers=numbers, is_deaf=True)
    fewer = dataclasses.replace(here.shape, proxies=here.shape.proxies - count)
    found = singles(dataclasses.replace(here, shape=fewer), changes=changes)
    held = here.plane.memory().pss - before
    here.clients.ask(act="deaf", numbers=numbers, is_deaf=False)
    here.rest(1.0)
    return {**found, "deaf": count, "more_mib": held}


def envoys(here: Field) -> Found:
    """Let real Envoys come, and replace a pod; what they have is read through their admin ports."""
    shape, place = here.shape, here.plane.place
    folder = here.folder / f"envoys-{here.marker()}"
    folder.mkdir()
    words = (shape.write(), place, str(ENVOYS), str(folder))
    with subject.companion("bench.scale.envoys", *words) as proxies:
        began = time.monotonic_ns()
        first = _until_right(here, proxies)
        event = [0.0, *here.pod(range(shape.services)), here.marker()]
        (written,) = here.servers.ask(act="replace", events=[event])["found"].values()
        then = _until_right(here, proxies)
    return {
        "lost": 2 * ENVOYS - len(first) - len(then),
        "came_ms": [(one - began) / 1e6 for one in first],
        "changed_ms": [(one - written) / 1e6 for one in then],
    }


def _until_right(here: Field, proxies: subject.Companion) -> list[int]:
    """Wait until Envoys have the truth; return when each had."""
    truth = here.servers.ask(act="truth")["found"]
    wanted = [
        truths.right(here.shape, truth, number % here.shape.clusters) for number in range(ENVOYS)
    ]
    proxies.tell(wanted=wanted, timeout_s=ENVOYS_S)
    here.rest(1.0)
    seen: list[int] = proxies.hear()["seen_ns"]
    return seen


def idle(here: Field, *, seconds: float) -> Found:
    """Let nothing happen."""
    here.rest(1.0)
    before, cpu_s = here.clients.ask(act="counted"), here.plane.cpu_s()
    here.rest(seconds)
    after = here.clients.ask(act="counted")
    return {
        "cpu_percent": (here.plane.cpu_s() - cpu_s) / seconds * 100,
        "messages": after["messages"] - before["messages"],
    }
