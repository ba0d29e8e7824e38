"""The steps that make one ambient mesh of three clusters on three networks, as a user types them.

Source: the guide for linked ambient meshes; spec sections 7.3 and 7.7.
"""

from collections.abc import Iterator, Mapping

from isthmus.cli import walkthrough
from isthmus.cli.walkthrough import Step, Walkthrough, lines

NUMBERS = (1, 2, 3)
HOST = "helloworld.sample.mesh.internal"
"""Under this name a service is reached in all clusters that share it."""

ISTIOD = """\
global:
  multiCluster:
    clusterName: CLUSTER
  network: NETWORK
env:
  PILOT_ENABLE_IP_AUTOALLOCATE: "true"
platforms:
  peering:
    enabled: true
"""
ZTUNNEL = """\
network: NETWORK
"""
CNI = """\
ambient:
  dnsCapture: true
"""


def _installed(number: int) -> Iterator[Step]:
    name, network = f"cluster{number}", f"network{number}"
    files = {
        f"{name}-istiod.yaml": ISTIOD.replace("CLUSTER", name).replace("NETWORK", network),
        f"{name}-ztunnel.yaml": ZTUNNEL.replace("NETWORK", network),
        f"{name}-cni.yaml": CNI,
    }
    yield Step(f"An intermediate authority for {name}", f"isthmus ca intermediate {name}")
    yield Step("", f"isthmus ca push --context={name} {name}")
    yield Step(
        f"Install ambient mode in {name}",
        lines(
            f"kubectl --context={name} label namespace istio-system",
            f"topology.istio.io/network={network}",
        ),
    )
    yield Step(
        "",
        lines(
            f"isthmus install --context={name} -y --set profile=ambient",
            *(f"--values {file}" for file in files),
        ),
        files=files,
    )
    yield Step(
        f"Let other networks reach {name}",
        f"isthmus multicluster expose --context={name} --namespace istio-gateways",
    )


LINKED = Step(
    "Link the clusters",
    lines(
        "isthmus multicluster link --contexts=cluster1,cluster2,cluster3",
        "--namespace istio-gateways",
    ),
    shows_output=True,
)


def _samples(number: int) -> Iterator[Step]:
    kubectl = f"kubectl --context=cluster{number}"
    version = walkthrough.VERSIONS[number - 1]
    manifest = "-f samples/helloworld/helloworld.yaml"
    yield Step(f"Deploy the samples in cluster{number}", f"{kubectl} create namespace sample")
    yield Step("", f"{kubectl} label namespace sample istio.io/dataplane-mode=ambient")
    yield Step("", lines(f"{kubectl} apply -n sample -l service=helloworld", manifest))
    yield Step(
        "",
        lines(f"{kubectl} -n sample label service helloworld", "solo.io/service-scope=global"),
    )
    yield Step("", lines(f"{kubectl} apply -n sample -l version={version}", manifest))
    yield Step("", f"{kubectl} apply -n sample -f samples/sleep/sleep.yaml")


def _ready(number: int) -> Step:
    return Step(
        "",
        lines(
            f"kubectl --context=cluster{number} -n sample wait",
            "--for=condition=Ready pod --all --timeout=300s",
        ),
    )


def _requests(number: int, title: str, awaited: str = "") -> Step:
    return Step(
        title,
        lines(
            f"kubectl --context=cluster{number} exec -n sample -c sleep deploy/sleep --",
            f"curl -sS '{HOST}:5000/hello?n=[1-4]'",
        ),
        shows_output=True,
        awaited=awaited,
    )


def _steps() -> Iterator[Step]:
    yield Step("Trust: one root for all clusters", "isthmus ca root")
    for number in NUMBERS:
        yield from _installed(number)
    yield LINKED
    for number in NUMBERS:
        yield from _samples(number)
    for number in NUMBERS:
        yield _ready(number)
    for number in NUMBERS:
        yield _requests(
            number,
            f"Send requests from cluster{number}: its own copy answers",
        )
    yield _verified("Verify: paths, identities, encryption")
    yield from _elsewhere()


def _elsewhere() -> Iterator[Step]:
    """Yield the steps that show others answer while there is no copy in the first cluster."""
    scaled = "kubectl --context=cluster1 -n sample scale deploy helloworld-v1"
    ended = "kubectl --context=cluster1 -n sample wait --for=delete pod"
    yield Step("Take the copy in cluster1 away: others answer", f"{scaled} --replicas=0")
    yield Step("", lines(ended, "-l app=helloworld --timeout=300s"))
    yield _requests(1, "", awaited="Hello version")
    yield _verified("")
    yield Step("Bring it back", f"{scaled} --replicas=1")
    yield _ready(1)


def _verified(title: str) -> Step:
    return Step(
        title,
        lines(
            "isthmus verify --contexts cluster1,cluster2,cluster3",
            f"--host {HOST} --requests 200",
        ),
        shows_output=True,
    )


TOPOLOGIES: Mapping[str, Walkthrough] = {
    "ambient": Walkthrough(
        "ambient",
        tuple(_steps()),
        clusters=len(NUMBERS),
        host="helloworld.sample.mesh.internal",
        page="docs/howto/ambient.md",
    )
}
