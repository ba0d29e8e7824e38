"""The steps of older guides, as a user of Istio types them: `istioctl` is this program.

Source: the guides for a remote cluster on the same network (Istio 1.6) and for split-horizon EDS
(Istio 1.1); spec section 10.5. What a guide leaves to a page before it is added here.
"""

from collections.abc import Mapping

from isthmus.cli import walkthrough
from isthmus.cli.walkthrough import Step, Walkthrough, lines

NAMES: Mapping[str, str] = {
    "CLUSTER_1": "cluster1",
    "CLUSTER_2": "cluster2",
    "CTX_1": "cluster1",
    "CTX_2": "cluster2",
    "MESH": "mesh1",
    "NETWORK_1": "network1",
}
"""What the guide of 1.6 calls clusters and networks."""


def _trust(number: int, title: str) -> tuple[Step, ...]:
    cluster, context = f"${{CLUSTER_{number}}}", f"${{CTX_{number}}}"
    files = ("ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem")
    return (
        Step(title, f"make -f ${{ISTIO}}/tools/certs/Makefile {cluster}-cacerts-k8s"),
        Step("", f"kubectl create namespace istio-system --context={context}"),
        Step(
            "",
            lines(
                f"kubectl create secret generic cacerts --context={context}",
                "-n istio-system",
                *(f"--from-file=${{WORK_DIR}}/{cluster}/{name}" for name in files),
            ),
        ),
    )


SHARED_PRIMARY = """\
cat <<EOF> ${WORK_DIR}/${CLUSTER_1}/install.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: ${MESH}
      multiCluster:
        clusterName: ${CLUSTER_1}
      network: ${NETWORK_1}
      # Let other clusters reach the control plane via the ingress
      meshExpansion:
        enabled: true
EOF"""

SHARED_REMOTE = """\
cat <<EOF> ${WORK_DIR}/${CLUSTER_2}/install.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: ${MESH}
      multiCluster:
        clusterName: ${CLUSTER_2}
      network: ${NETWORK_1}
      # Access the control plane discovery server via the ingress
      remotePilotAddress: ${DISCOVERY_ADDRESS}
EOF"""


def _applied(number: int) -> Step:
    return Step(
        "",
        lines(
            f"istioctl --context=${{CTX_{number}}} manifest apply -f",
            f"${{WORK_DIR}}/${{CLUSTER_{number}}}/install.yaml",
        ),
    )


SHARED_NETWORK = (
    Step("Trust: one root for both clusters", "make -f ${ISTIO}/tools/certs/Makefile root-ca"),
    *_trust(1, "An intermediate authority for cluster1"),
    Step("Deploy a control plane in cluster1, reached via its ingress gateway", SHARED_PRIMARY),
    _applied(1),
    *_trust(2, "Configure trust in cluster2"),
    Step(
        "Deploy in cluster2, with the discovery address pointing at that gateway",
        lines(
            "kubectl",
            "--context=${CTX_1}",
            "-n istio-system get svc istio-ingressgateway",
            "-o jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        ),
        variable="DISCOVERY_ADDRESS",
        shows_output=True,
    ),
    Step("", SHARED_REMOTE),
    _applied(2),
    Step("", "kubectl --context=${CTX_2} -n istio-system get pod", shows_output=True),
    Step(
        "Configure endpoint discovery",
        lines(
            "istioctl x create-remote-secret",
            "--context=${CTX_2}",
            "--name=${CLUSTER_2} |",
            "kubectl apply -f - --context=${CTX_1}",
        ),
    ),
    Step(
        "",
        lines(
            "kubectl --context=${CTX_2} -n istio-system wait",
            "--for=condition=Available deploy --all --timeout=60s",
        ),
    ),
    *walkthrough.WORKLOADS,
)

TOPOLOGIES: Mapping[str, Walkthrough] = {
    "primary-remote-shared-network": Walkthrough("shared-network", SHARED_NETWORK, NAMES),
}
"""Further walkthroughs that `isthmus demo` runs."""
