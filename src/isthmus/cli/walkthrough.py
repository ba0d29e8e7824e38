"""The steps of the walkthroughs, as a user types them.

Source: the primary-remote guide for different networks; spec sections 10.3 and 10.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
            "--for=condition=Ready pod --all --timeout=60s",
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


VERIFICATION = (
    _requests("cluster1", "version: v2"),
    _requests("cluster2", "version: v1"),
    Step(
        "Verify: shares, paths, identities, encryption",
        "isthmus verify --contexts cluster1,cluster2 --requests 200",
        shows_output=True,
    ),
    Step("", "isthmus --context=cluster1 proxy-status", shows_output=True),
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


def _east_west(number: int) -> tuple[Step, ...]:
    name = f"cluster{number}"
    return (
        Step(
            f"Install the east-west gateway in {name} and expose its services",
            lines(
                "samples/multicluster/gen-eastwest-gateway.sh",
                f"--mesh mesh1 --cluster {name} --network network{number} |",
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


BOTH_WAYS = (
    _attach("cluster1", "cluster2"),
    _attach("cluster2", "cluster1"),
    Step("", "isthmus --context=cluster1 remote-clusters", shows_output=True),
)

WORKLOADS = (
    *_samples("cluster1", "v1"),
    *_samples("cluster2", "v2"),
    _ready("cluster1"),
    _ready("cluster2"),
    *VERIFICATION,
)

ROOT = Step("Trust: one root for both clusters", "isthmus ca root")


@dataclass(frozen=True, slots=True)
class Walkthrough:
    """A way to join clusters: the lab that it needs, and the steps after booting.

    Attributes:
        variables: Names that the steps use, set before them.
        namespace: Where the samples are.
        programs: What the steps call that we do not bring.
    """

    lab: str
    steps: tuple[Step, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "sample"
    programs: tuple[str, ...] = ()


TOPOLOGIES: Mapping[str, Walkthrough] = {
    "primary-remote": Walkthrough("primary-remote", (*TRUST, *PRIMARY, *REMOTE, *WORKLOADS)),
    "multi-primary": Walkthrough(
        "shared-network",
        (ROOT, *_primary(1, "network1"), *_primary(2, "network1"), *BOTH_WAYS, *WORKLOADS),
    ),
    "multi-primary-multi-network": Walkthrough(
        "multi-primary",
        (
            ROOT,
            *_primary(1, "network1"),
            *_east_west(1),
            *_primary(2, "network2"),
            *_east_west(2),
            *BOTH_WAYS,
            *WORKLOADS,
        ),
    ),
}
"""The walkthroughs that `isthmus demo` runs."""
