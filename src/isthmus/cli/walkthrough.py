"""The steps of the walkthroughs, as a user types them.

Source: the primary-remote guide for different networks; spec sections 10.3 and 10.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isthmus.cli import narrow


@dataclass(frozen=True, slots=True)
class Step:
    """One command, with the files that it reads.

    Attributes:
        title: Printed above; empty continues the step before.
        shows_output: Whether what the command writes is worth reading.
        variable: An environment variable that takes the command's output.
        awaited: What its output shows for the first time, to be timed; empty for most.
    """

    title: str
    command: str
    files: Mapping[str, str] = field(default_factory=dict)
    shows_output: bool = False
    variable: str = ""
    awaited: str = ""

    @property
    def typed(self) -> str:
        """The command as it is shown and run: narrow enough for a terminal."""
        return narrow.narrowed(self.command)


CLUSTER1 = """\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: mesh1
      multiCluster:
        clusterName: cluster1
      network: network1
"""

CLUSTER2 = """\
cat <<EOF > cluster2.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    istiodRemote:
      injectionPath: /inject/cluster/cluster2/net/network2
    global:
      remotePilotAddress: ${DISCOVERY_ADDRESS}
EOF"""


def lines(*lines: str) -> str:
    """Return one command over several lines, as a person would break it."""
    return " \\\n    ".join(lines)


TRUST = (
    Step("Trust: one root, an intermediate for the control plane", "isthmus ca root"),
    Step("", "isthmus ca intermediate cluster1"),
    Step("", "isthmus ca push --context=cluster1 cluster1"),
)

PRIMARY = (
    Step(
        "Set the default network for cluster1",
        lines(
            "kubectl --context=cluster1 label namespace istio-system",
            "topology.istio.io/network=network1",
        ),
    ),
    Step(
        "Configure cluster1 as a primary",
        lines(
            "isthmus install --set values.pilot.env.EXTERNAL_ISTIOD=true",
            "--context=cluster1 -y -f cluster1.yaml",
        ),
        files={"cluster1.yaml": CLUSTER1},
    ),
    Step(
        "Install the east-west gateway in cluster1",
        lines(
            "samples/multicluster/gen-eastwest-gateway.sh",
            "--mesh mesh1 --cluster cluster1 --network network1 |",
            "isthmus --context=cluster1 install -y -f -",
        ),
    ),
    Step(
        "",
        "kubectl --context=cluster1 get svc istio-eastwestgateway -n istio-system",
        shows_output=True,
    ),
    Step(
        "Expose the control plane and the services in cluster1",
        lines(
            "kubectl apply --context=cluster1 -n istio-system -f",
            "samples/multicluster/expose-istiod.yaml",
        ),
    ),
    Step(
        "",
        lines(
            "kubectl --context=cluster1 apply -n istio-system -f",
            "samples/multicluster/expose-services.yaml",
        ),
    ),
)

REMOTE = (
    Step(
        "Set the control plane cluster and the network for cluster2",
        "kubectl --context=cluster2 create namespace istio-system",
    ),
    Step(
        "",
        lines(
            "kubectl --context=cluster2 annotate namespace istio-system",
            "topology.istio.io/controlPlaneClusters=cluster1",
        ),
    ),
    Step(
        "",
        lines(
            "kubectl --context=cluster2 label namespace istio-system",
            "topology.istio.io/network=network2",
        ),
    ),
    Step(
        "Configure cluster2 as a remote",
        lines(
            "kubectl --context=cluster1 -n istio-system get svc istio-eastwestgateway",
            "-o jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        ),
        variable="DISCOVERY_ADDRESS",
        shows_output=True,
    ),
    Step("", CLUSTER2),
    Step("", "isthmus install --context=cluster2 -y -f cluster2.yaml"),
    Step(
        "Install the east-west gateway in cluster2 and expose its services",
        lines(
            "samples/multicluster/gen-eastwest-gateway.sh",
            "--mesh mesh1 --cluster cluster2 --network network2 |",
            "isthmus --context=cluster2 install -y -f -",
        ),
    ),
    Step(
        "",
        lines(
            "kubectl --context=cluster2 apply -n istio-system -f",
            "samples/multicluster/expose-services.yaml",
        ),
    ),
    Step(
        "Attach cluster2 as a remote cluster of cluster1",
        lines(
            "isthmus x create-remote-secret --context=cluster2 --name=cluster2 |",
            "kubectl apply -f - --context=cluster1",
        ),
    ),
    Step("", "isthmus --context=cluster1 remote-clusters", shows_output=True),
)


def _samples(context: str, version: str) -> tuple[Step, ...]:
    kubectl = f"kubectl --context={context}"
    manifest = "-f samples/helloworld/helloworld.yaml"
    return (
        Step(f"Deploy the samples in {context}", f"{kubectl} create namespace sample"),
        Step("", f"{kubectl} label namespace sample istio-injection=enabled"),
        Step("", lines(f"{kubectl} apply -n sample -l service=helloworld", manifest)),
        Step("", lines(f"{kubectl} apply -n sample -l version={version}", manifest)),
        Step("", f"{kubectl} apply -n sample -f samples/sleep/sleep.yaml"),
    )


def _ready(context: str) -> Step:
    return Step(
        "",
        lines(
            f"kubectl --context={context} -n sample wait",
            "--for=condition=Ready pod --all --timeout=300s",
        ),
    )


def _requests(context: str, awaited: str) -> Step:
    return Step(
        f"Send requests from {context}",
        lines(
            f"kubectl --context={context} exec -n sample -c sleep deploy/sleep --",
            "curl -sS 'helloworld.sample:5000/hello?n=[1-4]'",
        ),
        shows_output=True,
        awaited=awaited,
    )


def verification(names: Sequence[str], *, asked: str) -> tuple[Step, ...]:
    """Return the steps that show a mesh of these clusters at work, and what `asked` tells."""
    return (
        *(
            _requests(name, "version: v1" if name == "cluster2" else "version: v2")
            for name in names
        ),
        Step(
            "Verify: shares, paths, identities, encryption",
            f"isthmus verify --contexts {','.join(names)} --requests 200",
            shows_output=True,
        ),
        Step("", f"isthmus {asked} proxy-status", shows_output=True),
    )


def _primary(number: int, network: str) -> tuple[Step, ...]:
    """Return the steps that give a cluster a control plane of its own."""
    name = f"cluster{number}"
    return (
        Step(f"An intermediate authority for {name}", f"isthmus ca intermediate {name}"),
        Step("", f"isthmus ca push --context={name} {name}"),
        Step(
            f"Install a control plane in {name}",
            lines(
                f"kubectl --context={name} label namespace istio-system",
                f"topology.istio.io/network={network}",
            ),
        ),
        Step(
            "",
            f"isthmus install --context={name} -y -f {name}.yaml",
            files={
                f"{name}.yaml": CLUSTER1.replace("cluster1", name)
                .replace("network1", network)
                .replace("spec:\n", "spec:\n  profile: minimal\n")
            },
        ),
    )


def _east_west(number: int, network: str) -> tuple[Step, ...]:
    name = f"cluster{number}"
    return (
        Step(
            f"Install the east-west gateway in {name} and expose its services",
            lines(
                "samples/multicluster/gen-eastwest-gateway.sh",
                f"--mesh mesh1 --cluster {name} --network {network} |",
                f"isthmus --context={name} install -y -f -",
            ),
        ),
        Step(
            "",
            lines(
                f"kubectl --context={name} apply -n istio-system -f",
                "samples/multicluster/expose-services.yaml",
            ),
        ),
    )


def _attach(watched: str, watcher: str) -> Step:
    return Step(
        f"Let {watcher} discover the endpoints of {watched}",
        lines(
            f"isthmus x create-remote-secret --context={watched} --name={watched} |",
            f"kubectl apply -f - --context={watcher}",
        ),
    )


def _all_ways(count: int) -> tuple[Step, ...]:
    """Return the steps after which the control plane of each cluster watches every other."""
    names = [f"cluster{number}" for number in range(1, count + 1)]
    return (
        *(_attach(one, other) for one in names for other in names if one != other),
        Step("", "isthmus --context=cluster1 remote-clusters", shows_output=True),
    )


VERSIONS = ("v1", "v2", "v1")
"""Which version of the service runs in which cluster; there are images of two."""


def workloads(count: int, *, asked: str = "--context=cluster1") -> tuple[Step, ...]:
    """Return the steps that deploy the samples in so many clusters and show them at work.

    `asked` are the options by which the control plane is reached.
    """
    versions = {f"cluster{number}": VERSIONS[number - 1] for number in range(1, count + 1)}
    return (
        *(step for name, version in versions.items() for step in _samples(name, version)),
        *(_ready(name) for name in versions),
        *verification(tuple(versions), asked=asked),
    )


WORKLOADS = workloads(2)


@dataclass(frozen=True, slots=True)
class Walkthrough:
    """A way to join clusters: the lab that it needs, and the steps after booting.

    Attributes:
        variables: Names that the steps use, set before them.
        namespace: Where the samples are.
        programs: What the steps call that we do not bring.
        clusters: How many there are.
        host: What verification calls there.
        page: Where the same steps stand.
    """

    lab: str
    steps: tuple[Step, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "sample"
    programs: tuple[str, ...] = ()
    clusters: int = 2
    host: str = ""
    page: str = "docs/tutorial/first-mesh.md"


def _multi_primary(lab: str, networks: Sequence[str]) -> Walkthrough:
    """Return the walkthrough that gives each cluster, by its network, a control plane."""
    steps: list[Step] = []
    for number, network in enumerate(networks, start=1):
        steps += _primary(number, network)
        if len(set(networks)) > 1:
            steps += _east_west(number, network)
    count = len(networks)
    root = Step("Trust: one root for all clusters", "isthmus ca root")
    return Walkthrough(lab, (root, *steps, *_all_ways(count), *workloads(count)), clusters=count)


TOPOLOGIES: Mapping[str, Walkthrough] = {
    "primary-remote": Walkthrough("primary-remote", (*TRUST, *PRIMARY, *REMOTE, *WORKLOADS)),
    "multi-primary": _multi_primary("shared-network", ("network1", "network1")),
    "multi-primary-multi-network": _multi_primary("multi-primary", ("network1", "network2")),
}
"""The walkthroughs that `isthmus demo` runs."""

OF_THREE: Mapping[str, Walkthrough] = {
    "multi-primary": _multi_primary("three-clusters", ("network1", "network1", "network1")),
    "multi-primary-multi-network": _multi_primary(
        "three-networks", ("network1", "network2", "network3")
    ),
}
"""Those that it runs with three clusters, too."""
