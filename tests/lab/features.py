"""What every topology promises, one function for each promise, and where each topology differs.

The page `docs/reference/topologies.md` has a column for each function and a row for each topology;
what stands there was said by these functions in a run of the lab's tests.
"""

import functools
import itertools
import json
import os
from dataclasses import dataclass, field

import traffic
import wires
from drill import packets

from isthmus.testing import pace

REQUESTS = 200
SOME = 20
MTLS, SERVICE = 15443, 5000
LIMIT_S = 90.0
MANY = int(os.environ.get("CLUSTERS_OF_FIFTY", "12"))
"""How many clusters stand for fifty; `make topologies` takes all of them."""

DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: %s}
spec:
  selector: {matchLabels: {app: helloworld}}
  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/%s/sa/sleep"]}}]}]
"""


@dataclass(frozen=True)
class Row:
    """A topology, as its walkthrough leaves it.

    Attributes:
        networks: Of each cluster that has a client.
        servers: Which version of the service runs where.
        planes: Options by which each control plane is asked, to how many clusters it watches.
        objects: Clusters where the mesh's own objects are read.
    """

    networks: dict[str, str]
    planes: dict[str, int] = field(default_factory=lambda: {"--context cluster1": 2})
    servers: dict[str, str] = field(default_factory=lambda: {"cluster1": "v1", "cluster2": "v2"})
    namespace: str = "sample"
    objects: tuple[str, ...] = ("cluster1",)


def _on(*networks):
    return {f"cluster{number}": network for number, network in enumerate(networks, start=1)}


def _planes(count):
    return {f"--context cluster{number}": count for number in range(1, count + 1)}


THREE = {"cluster1": "v1", "cluster2": "v2", "cluster3": "v1"}
ROWS = {
    "primary-remote": Row(_on("network1", "network2")),
    "primary-remote-shared-network": Row(_on("network1", "network1")),
    "split-horizon": Row(_on("network1", "network2"), namespace="app1"),
    "multi-primary": Row(
        _on(*["network1"] * 3), planes=_planes(3), servers=THREE, objects=tuple(THREE)
    ),
    "multi-primary-multi-network": Row(
        _on("network1", "network2", "network3"),
        planes=_planes(3),
        servers=THREE,
        objects=tuple(THREE),
    ),
    "external-control-plane": Row(
        _on("network1", "network2"), planes={"--context external -i external-istiod": 2}
    ),
    "fifty": Row(
        {
            "cluster1": "network1",
            "cluster2": "network1",
            f"cluster{MANY // 2 + 1}": "network2",
            f"cluster{MANY}": "network2",
        },
        planes={"--context cluster1": MANY},
        servers={"cluster1": "v1", f"cluster{MANY}": "v2"},
    ),
}


class Seen:
    """A joined lab, and what was measured in it."""

    def __init__(self, lab, row):
        self.lab = lab
        self.row = row

    @functools.cached_property
    def report(self):
        words = f"--namespace {self.row.namespace} --contexts {','.join(self.row.networks)}"
        return json.loads(
            self.lab.attempt(f"isthmus verify {words} --requests {REQUESTS} -o json").stdout
        )

    def places(self, row):
        """Return the networks of who asked and of who answered."""
        known = self.row.networks
        return known[row["source"]], known[row["cluster"]]

    def answers(self, cluster, options="-sS"):
        """Return what some calls of a client in a cluster print."""
        host = f"helloworld.{self.row.namespace}:{SERVICE}"
        words = f"exec -n {self.row.namespace} -c sleep deploy/sleep --"
        command = f"{words} curl {options} 'http://{host}/hello?n=[1-{SOME}]'"
        return self.lab.kubectl(cluster, command).splitlines()

    def answered(self, cluster):
        """Return the versions that answer a client; no request may be lost."""
        answers = self.answers(cluster)
        assert [answer.split()[0] for answer in answers] == ["Hello"] * SOME
        return {answer.split()[2].rstrip(",") for answer in answers}

    def statuses(self, cluster):
        """Return the HTTP statuses that a client gets."""
        return set(self.answers(cluster, "-s -o /dev/null -w '%{http_code}\\n'"))


def all_answered(seen):
    """Answer 200 of 200 requests from each cluster."""
    assert seen.report["is_well"], seen.report["findings"]
    assert seen.report["requests"] == REQUESTS * len(seen.row.networks)


def shared_fairly(seen):
    """Give every cluster with pods its share of the requests."""
    rows, fair = seen.report["rows"], 1 / len(seen.row.servers)
    pairs = [(row["source"], row["cluster"]) for row in rows]
    assert sorted(pairs) == sorted(itertools.product(seen.row.networks, seen.row.servers))
    assert all(0.6 * fair <= row["share"] <= 1.4 * fair for row in rows), rows


def identities(seen):
    """Show the destination who calls."""
    callers = {caller for row in seen.report["rows"] for caller in row["callers"]}
    assert callers == {f"spiffe://cluster.local/ns/{seen.row.namespace}/sa/sleep"}


def paths(seen):
    """Go directly within a network, and through a gateway to another."""
    for row in seen.report["rows"]:
        near = len(set(seen.places(row))) == 1
        assert (row["path"] == "direct") == near, row


def encrypted(seen):
    """Send nothing but TLS between pods, as captured packets say."""
    is_one = len(set(seen.row.networks.values())) == 1
    with wires.Wires(seen.lab).captured("net0" if is_one else "transit") as frames:
        for cluster in seen.row.networks:
            seen.answered(cluster)
    port = SERVICE if is_one else MTLS
    streams = [one for one in packets.streams_of(frames) if port in (one.source[1], one.target[1])]
    assert sum(len(run) for one in streams for run in one.runs()) > SOME * 100
    assert [fault for one in streams if (fault := packets.fault_of(one))] == []


def injected(seen):
    """Put a proxy into every pod of a labelled namespace."""
    for cluster in seen.row.networks:
        pods = seen.lab.json_of(cluster, f"pods -n {seen.row.namespace}")["items"]
        assert pods
        for pod in pods:
            names = {one["name"] for one in pod["spec"]["containers"]}
            assert "istio-proxy" in names, pod["metadata"]["name"]
            assert "sidecar.istio.io/status" in pod["metadata"]["annotations"]


def one_root(seen):
    """Give every cluster's pods the same roots."""
    name = f"configmap istio-ca-root-cert -n {seen.row.namespace}"
    roots = {seen.lab.json_of(each, name)["data"]["root-cert.pem"] for each in seen.row.networks}
    assert len(roots) == 1


def watched(seen):
    """Have every control plane say that all its clusters are synced."""
    for asked, count in seen.row.planes.items():
        clusters = seen.lab.json(f"isthmus {asked} remote-clusters -o json")
        assert len({one["id"] for one in clusters}) == count
        assert {one["syncStatus"] for one in clusters} == {"synced"}


def accepted(seen):
    """Have every proxy accept all that it was sent."""
    for asked in seen.row.planes:
        proxies = seen.lab.json(f"isthmus {asked} proxy-status -o json")
        assert proxies
        for proxy in proxies:
            for type_, status in proxy["resources"].items():
                assert status["sent"] == status["acked"], (proxy["proxy"], type_, status)
                assert not status.get("lastError")


def failed_over(seen):
    """Lose no request when a cluster's pods go, and use them again when they come."""
    (gone, version), *_ = [one for one in seen.row.servers.items() if one[1] == "v2"]
    scale = f"scale deploy helloworld-{version} -n {seen.row.namespace} --replicas"
    seen.lab.kubectl(gone, f"{scale}=0")
    try:
        for cluster in seen.row.networks:
            traffic.until(lambda cluster=cluster: seen.answered(cluster) == {"v1"})
    finally:
        seen.lab.kubectl(gone, f"{scale}=1")
    for cluster in seen.row.networks:
        traffic.until(lambda cluster=cluster: seen.answered(cluster) == {"v1", "v2"})


def refused(seen):
    """Refuse callers, wherever they are, whom an AuthorizationPolicy denies by identity."""
    policy = DENY % (seen.row.namespace, seen.row.namespace)
    for cluster in seen.row.objects:
        seen.lab.kubectl(cluster, "apply -f -", stdin=policy)
    try:
        for cluster in seen.row.networks:
            traffic.until(lambda cluster=cluster: seen.statuses(cluster) == {"403"})
    finally:
        for cluster in seen.row.objects:
            seen.lab.kubectl(cluster, "delete -f -", stdin=policy)
    for cluster in seen.row.networks:
        traffic.until(lambda cluster=cluster: seen.statuses(cluster) == {"200"})


def soon(seen):
    """Boot, join and verify by the walkthrough in less than 90 seconds."""
    # A machine on which programs start more slowly has more time.
    assert seen.lab.took_s < pace.promised(LIMIT_S)


FEATURES = {
    "all answered": all_answered,
    "fair shares": shared_fairly,
    "caller's identity": identities,
    "paths": paths,
    "only TLS": encrypted,
    "injection": injected,
    "one root": one_root,
    "clusters synced": watched,
    "proxies in step": accepted,
    "policy": refused,
    "failover": failed_over,
    "under 90 s": soon,
}


def held(lab, topology, record):
    """Hold a lab against every promise; `record` is told of each, then all failures are raised."""
    seen, failures = Seen(lab, ROWS[topology]), []
    record("seconds", f"{topology}/{lab.took_s:.0f}")
    for name, promise in FEATURES.items():
        outcome = "passed"
        try:
            promise(seen)
        except AssertionError as error:
            outcome = "failed"
            error.add_note(f"{topology}: {name}")
            failures.append(error)
        record("topology", f"{topology}/{name}/{outcome}")
    if failures:
        raise ExceptionGroup(f"`{topology}` breaks {len(failures)} promises", failures)
