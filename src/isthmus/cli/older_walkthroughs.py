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
        Step(title, "cd ${WORK_DIR}"),
        Step("", f"make -f ${{ISTIO}}/tools/certs/Makefile {cluster}-cacerts-k8s"),
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
            "--for=condition=Available deploy --all --timeout=300s",
        ),
    ),
    *walkthrough.WORKLOADS,
)

HORIZON_NAMES: Mapping[str, str] = {"CTX_LOCAL": "cluster1", "CTX_REMOTE": "cluster2"}

LOCAL, REMOTE = "--context=$CTX_LOCAL", "--context=$CTX_REMOTE"


def _authority(context: str, name: str) -> tuple[Step, ...]:
    files = ("ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem")
    return (
        Step(f"An intermediate authority for {name}", f"istioctl ca intermediate {name}"),
        Step("", f"kubectl {context} create namespace istio-system"),
        Step(
            "",
            lines(
                f"kubectl {context} create secret generic cacerts -n istio-system",
                *(f"--from-file={name}/{file}" for file in files),
            ),
        ),
    )


def _kinds(context: str, title: str) -> tuple[Step, ...]:
    """Return the steps that bring the kinds first: `kubectl apply` looks them up beforehand."""
    return (
        Step(
            title,
            lines(
                "istioctl manifest generate --set profile=minimal",
                "--set components.pilot.enabled=false |",
                f"kubectl {context} apply -f -",
            ),
        ),
        Step("", f"kubectl {context} wait --for=condition=Established crd --all"),
    )


ADDED = """\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  meshConfig:
    accessLogFile: /dev/stdout
  values:
    global:
      network: network1
      multiCluster:
        clusterName: cluster1
      meshNetworks:
        network1:
          endpoints:
          - fromRegistry: cluster1
          gateways:
          - registryServiceName:
              istio-ingressgateway.istio-system.svc.cluster.local
            port: 15443
"""
"""What the guide's values leave out: calls in the other direction, and the log that it reads."""


def _rendered(context: str, file: str, *settings: str, added: str = "") -> tuple[Step, ...]:
    words = [f"--set values.{setting}" for setting in settings]
    files = {"networks.yaml": added} if added else {}
    command = "istioctl manifest generate" + (" -f networks.yaml" if added else "")
    return (
        Step("", lines(command, *words, f"> ./{file}"), files=files),
        Step("", f"kubectl {context} apply -f ./{file}"),
    )


def _address_of(context: str, variable: str, title: str) -> Step:
    return Step(
        title,
        lines(
            f"kubectl get {context} svc --selector=app=istio-ingressgateway",
            '-n istio-system -o jsonpath="{.items[0].status.loadBalancer.ingress[0].ip}"',
        ),
        variable=variable,
        shows_output=True,
    )


CLUSTER_AWARE_GATEWAY = """\
kubectl --context=$CTX_LOCAL create -f - <<EOF
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: cluster-aware-gateway
  namespace: istio-system
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 15443
      name: tls
      protocol: TLS
    tls:
      mode: AUTO_PASSTHROUGH
    hosts:
    - "*"
EOF"""

NEW_ADDRESS = lines(
    "kubectl --context=$CTX_LOCAL get configmap istio -n istio-system -o yaml |",
    'sed "s/address: 0.0.0.0/address: ${REMOTE_GW_ADDR}/" |',
    "kubectl --context=$CTX_LOCAL replace -f -",
)

KUBECONFIG = """\
CLUSTER_NAME="cluster2"
SERVER=https://$(kubectl --context=$CTX_REMOTE get endpoints kubernetes -n default \\
  -o jsonpath='{.subsets[0].addresses[0].ip}:{.subsets[0].ports[0].port}')
SECRET_NAME=$(kubectl --context=$CTX_REMOTE get sa istio-multi -n istio-system \\
    -o jsonpath='{.secrets[].name}')
CA_DATA=$(kubectl --context=$CTX_REMOTE get secret ${SECRET_NAME} -n istio-system \\
    -o "jsonpath={.data['ca\\.crt']}")
TOKEN=$(kubectl --context=$CTX_REMOTE get secret ${SECRET_NAME} -n istio-system \\
    -o "jsonpath={.data['token']}" | base64 --decode)
cat <<EOF > n2-k8s-config
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: ${CA_DATA}
    server: ${SERVER}
  name: ${CLUSTER_NAME}
contexts:
- context:
    cluster: ${CLUSTER_NAME}
    user: ${CLUSTER_NAME}
  name: ${CLUSTER_NAME}
current-context: ${CLUSTER_NAME}
users:
- name: ${CLUSTER_NAME}
  user:
    token: ${TOKEN}
EOF"""


def _available(context: str) -> Step:
    return Step(
        "",
        lines(
            f"kubectl {context} -n istio-system wait",
            "--for=condition=Available deploy --all --timeout=300s",
        ),
    )


def _workloads(context: str, version: str, *, client: bool) -> tuple[Step, ...]:
    kubectl = f"kubectl {context}"
    found = [
        Step(f"Deploy helloworld {version}", f"{kubectl} create namespace app1"),
        Step("", f"{kubectl} label namespace app1 istio-injection=enabled"),
    ]
    if client:
        found.append(Step("", f"{kubectl} apply -n app1 -f samples/sleep/sleep.yaml"))
    return (
        *found,
        Step("", f"{kubectl} apply -n app1 -f samples/helloworld/service.yaml"),
        Step(
            "",
            lines(
                f"{kubectl} apply -n app1",
                f"-f samples/helloworld/helloworld.yaml -l version={version}",
            ),
        ),
    )


def _pods(context: str) -> Step:
    wait = "--for=condition=Ready pod --all --timeout=300s"
    return Step("", f"kubectl {context} -n app1 wait {wait}")


SPLIT_HORIZON = (
    Step("Trust: one root for both clusters", "istioctl ca root"),
    *_authority(LOCAL, "cluster1"),
    *_kinds(LOCAL, "Install the kinds, then the control plane, in cluster1"),
    *_rendered(
        LOCAL,
        "istio-auth.yaml",
        "global.mtls.enabled=true",
        "security.selfSigned=false",
        "global.controlPlaneSecurityEnabled=true",
        "global.meshExpansion.enabled=true",
        "global.meshNetworks.network2.endpoints[0].fromRegistry=n2-k8s-config",
        "global.meshNetworks.network2.endpoints[1].fromCidr=10.11.0.0/16",
        "global.meshNetworks.network2.gateways[0].address=0.0.0.0",
        "global.meshNetworks.network2.gateways[0].port=15443",
        added=ADDED,
    ),
    _available(LOCAL),
    Step("Create a gateway to access remote services", CLUSTER_AWARE_GATEWAY),
    *_authority(REMOTE, "cluster2"),
    *_kinds(REMOTE, "Deploy the remote components in cluster2"),
    _address_of(LOCAL, "LOCAL_GW_ADDR", ""),
    *_rendered(
        REMOTE,
        "istio-remote-auth.yaml",
        "global.mtls.enabled=true",
        "gateways.enabled=true",
        "security.selfSigned=false",
        "global.controlPlaneSecurityEnabled=true",
        "global.createRemoteSvcEndpoints=true",
        "global.remotePilotCreateSvcEndpoint=true",
        "global.remotePilotAddress=${LOCAL_GW_ADDR}",
        "global.remotePolicyAddress=${LOCAL_GW_ADDR}",
        "global.remoteTelemetryAddress=${LOCAL_GW_ADDR}",
        'gateways.istio-ingressgateway.env.ISTIO_META_NETWORK="network2"',
        'global.network="network2"',
        "global.multiCluster.clusterName=n2-k8s-config",
    ),
    Step("", "kubectl --context=$CTX_REMOTE -n istio-system rollout status deploy/istiod"),
    _address_of(REMOTE, "REMOTE_GW_ADDR", "Put its gateway where 0.0.0.0 stands in cluster1"),
    Step("", NEW_ADDRESS),
    Step(
        "Create a kubeconfig for cluster2",
        "kubectl --context=$CTX_REMOTE apply -f samples/multicluster/istio-multi.yaml",
    ),
    Step("", KUBECONFIG),
    Step(
        "Add cluster2 to the control plane",
        lines(
            "kubectl --context=$CTX_LOCAL create secret generic n2-k8s-secret",
            "--from-file n2-k8s-config -n istio-system",
        ),
    ),
    Step(
        "",
        lines(
            "kubectl --context=$CTX_LOCAL label secret n2-k8s-secret istio/multiCluster=true",
            "-n istio-system",
        ),
    ),
    _available(REMOTE),
    *_workloads(LOCAL, "v1", client=True),
    *_workloads(REMOTE, "v2", client=True),
    _pods(LOCAL),
    _pods(REMOTE),
    Step(
        "Both versions are registered",
        lines(
            "kubectl --context=$CTX_LOCAL exec -n istio-system deploy/istiod --",
            "pilot-discovery request GET /v1/registration |",
            "grep helloworld -A 17 -B 1",
        ),
        shows_output=True,
    ),
    Step(
        "Call the service from cluster1",
        lines(
            "kubectl --context=$CTX_LOCAL get -n app1 pod -l app=sleep",
            "-o jsonpath={.items..metadata.name}",
        ),
        variable="SLEEP_POD",
        shows_output=True,
    ),
    Step(
        "",
        lines(
            "kubectl --context=$CTX_LOCAL exec -n app1 $SLEEP_POD -c sleep --",
            "curl -sS 'helloworld.app1:5000/hello?n=[1-4]'",
        ),
        shows_output=True,
        awaited="version: v2",
    ),
    Step(
        "",
        lines(
            "kubectl --context=$CTX_LOCAL logs -n app1 $SLEEP_POD -c istio-proxy |",
            "grep -o '\"[0-9.:]*\" outbound[^ ]*' | tail -4",
        ),
        shows_output=True,
    ),
    Step(
        "Call the service from cluster2",
        lines(
            "kubectl --context=$CTX_REMOTE exec -n app1 -c sleep deploy/sleep --",
            "curl -sS 'helloworld.app1:5000/hello?n=[1-4]'",
        ),
        shows_output=True,
    ),
    Step(
        "Verify: shares, paths, identities, encryption",
        "istioctl verify --contexts cluster1,cluster2 --namespace app1 --requests 200",
        shows_output=True,
    ),
)

TOPOLOGIES: Mapping[str, Walkthrough] = {
    "primary-remote-shared-network": Walkthrough(
        "shared-network", SHARED_NETWORK, variables=NAMES, programs=("kubectl", "make")
    ),
    "split-horizon": Walkthrough(
        "primary-remote",
        SPLIT_HORIZON,
        variables=HORIZON_NAMES,
        namespace="app1",
        programs=("kubectl",),
    ),
}
"""Further walkthroughs that `isthmus demo` runs."""
