"""The steps of the guide to a control plane outside of its mesh, as a user types them.

Its test-only form: addresses instead of names, and TLS that the gateway passes on.

Source: the external control plane guide; spec section 6.5.
"""

from collections.abc import Mapping

from isthmus.cli.walkthrough import Step, Walkthrough, lines, workloads

EXTERNAL = "${CTX_EXTERNAL_CLUSTER}"
CONFIG = "${CTX_REMOTE_CLUSTER}"
SECOND = "${CTX_SECOND_CLUSTER}"
NAMESPACE = "external-istiod"

NAMES: Mapping[str, str] = {
    "CTX_EXTERNAL_CLUSTER": "external",
    "CTX_REMOTE_CLUSTER": "cluster1",
    "REMOTE_CLUSTER_NAME": "cluster1",
    "CTX_SECOND_CLUSTER": "cluster2",
    "SECOND_CLUSTER_NAME": "cluster2",
}

GATEWAY = """\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  components:
    ingressGateways:
    - name: istio-ingressgateway
      enabled: true
      k8s:
        service:
          ports:
          - {name: status-port, port: 15021, targetPort: 15021}
          - {name: tls-xds, port: 15012, targetPort: 15012}
          - {name: tls-webhook, port: 15017, targetPort: 15017}
"""

CONFIG_CLUSTER = """\
cat <<EOF > remote-config-cluster.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    global:
      istioNamespace: external-istiod
      remotePilotAddress: ${EXTERNAL_ISTIOD_ADDR}
      configCluster: true
    pilot:
      configMap: true
    istiodRemote:
      injectionPath: /inject/cluster/${REMOTE_CLUSTER_NAME}/net/network1
EOF"""

CONTROL_PLANE = """\
cat <<EOF > external-istiod.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: empty
  meshConfig:
    rootNamespace: external-istiod
    defaultConfig:
      discoveryAddress: ${EXTERNAL_ISTIOD_ADDR}:15012
  components:
    pilot:
      enabled: true
      k8s:
        env:
        - name: INJECTION_WEBHOOK_CONFIG_NAME
          value: istio-sidecar-injector-external-istiod
        - name: VALIDATION_WEBHOOK_CONFIG_NAME
          value: istio-validator-external-istiod
        - {name: EXTERNAL_ISTIOD, value: "true"}
        - {name: LOCAL_CLUSTER_SECRET_WATCHER, value: "true"}
        - {name: CLUSTER_ID, value: "${REMOTE_CLUSTER_NAME}"}
        - {name: SHARED_MESH_CONFIG, value: istio}
  values:
    global:
      istioNamespace: external-istiod
      caAddress: ${EXTERNAL_ISTIOD_ADDR}:15012
      operatorManageWebhooks: true
      meshID: mesh1
EOF"""

EXPOSED = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: external-istiod-gw
  namespace: external-istiod
spec:
  selector:
    istio: ingressgateway
  servers:
  - port: {number: 15012, protocol: TLS, name: tls-XDS}
    tls: {mode: PASSTHROUGH}
    hosts: ["*"]
  - port: {number: 15017, protocol: TLS, name: tls-WEBHOOK}
    tls: {mode: PASSTHROUGH}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: external-istiod-vs
  namespace: external-istiod
spec:
  hosts: ["*"]
  gateways: [external-istiod-gw]
  tls:
  - match:
    - {port: 15012, sniHosts: ["*"]}
    route:
    - destination:
        host: istiod.external-istiod.svc.cluster.local
        port: {number: 15012}
  - match:
    - {port: 15017, sniHosts: ["*"]}
    route:
    - destination:
        host: istiod.external-istiod.svc.cluster.local
        port: {number: 443}
"""

SECOND_CLUSTER = """\
cat <<EOF > second-remote-cluster.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    global:
      istioNamespace: external-istiod
      remotePilotAddress: ${EXTERNAL_ISTIOD_ADDR}
    istiodRemote:
      injectionPath: /inject/cluster/${SECOND_CLUSTER_NAME}/net/network2
EOF"""

OUTSIDE = (
    Step("Trust: one root, an authority for each of two control planes", "isthmus ca root"),
    Step("", "isthmus ca intermediate external && isthmus ca intermediate mesh1"),
    Step("", f"isthmus ca push --context={EXTERNAL} external"),
    Step("", f"isthmus ca push --context={EXTERNAL} -i {NAMESPACE} mesh1"),
    Step(
        "Set up a gateway in the external cluster",
        f"istioctl install -y -f controlplane-gateway.yaml --context={EXTERNAL}",
        files={"controlplane-gateway.yaml": GATEWAY},
    ),
    Step(
        "",
        lines(
            f"kubectl -n istio-system --context={EXTERNAL} get svc istio-ingressgateway",
            "-o jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        ),
        variable="EXTERNAL_ISTIOD_ADDR",
        shows_output=True,
    ),
)

CONFIGURED = (
    Step("Set up the config cluster", CONFIG_CLUSTER),
    Step("", f"kubectl create namespace {NAMESPACE} --context={CONFIG}"),
    Step(
        "",
        lines(
            "istioctl manifest generate -f remote-config-cluster.yaml",
            "--set values.defaultRevision=default |",
            f"kubectl apply --context={CONFIG} -f -",
        ),
    ),
    Step("", f"kubectl get mutatingwebhookconfiguration --context={CONFIG}", shows_output=True),
    Step(
        "Set up the control plane in the external cluster",
        lines(
            f"istioctl x create-remote-secret --context={CONFIG} --type=config",
            f"--namespace={NAMESPACE} --service-account=istiod --create-service-account=false |",
            f"kubectl apply -f - --context={EXTERNAL}",
        ),
    ),
    Step("", CONTROL_PLANE),
    Step("", f"istioctl install -y -f external-istiod.yaml --context={EXTERNAL}"),
    Step(
        "",
        f"kubectl apply -f external-istiod-gw.yaml --context={EXTERNAL}",
        files={"external-istiod-gw.yaml": EXPOSED},
    ),
    Step("", f"kubectl get po -n {NAMESPACE} --context={EXTERNAL}", shows_output=True),
)


def _gateway(context: str, cluster: str, number: int) -> tuple[Step, ...]:
    file = f"eastwest-gateway-{number}.yaml"
    return (
        Step(
            f"Set up the east-west gateway in cluster{number}",
            lines(
                "samples/multicluster/gen-eastwest-gateway.sh --mesh mesh1",
                f"--cluster {cluster} --network network{number} > {file}",
            ),
        ),
        Step(
            "",
            lines(
                f"istioctl manifest generate -f {file}",
                f"--set values.global.istioNamespace={NAMESPACE} |",
                f"kubectl apply --context={context} -f -",
            ),
        ),
    )


REGISTERED = (
    Step("Register a second cluster", SECOND_CLUSTER),
    Step("", f"kubectl create namespace {NAMESPACE} --context={SECOND}"),
    Step(
        "",
        lines(
            f"kubectl annotate namespace {NAMESPACE} --context={SECOND}",
            "topology.istio.io/controlPlaneClusters=${REMOTE_CLUSTER_NAME}",
        ),
    ),
    Step(
        "",
        lines(
            "istioctl manifest generate -f second-remote-cluster.yaml |",
            f"kubectl apply --context={SECOND} -f -",
        ),
    ),
    Step(
        "",
        lines(
            f"istioctl x create-remote-secret --context={SECOND} --name=${{SECOND_CLUSTER_NAME}}",
            f"--type=remote --namespace={NAMESPACE} --create-service-account=false |",
            f"kubectl apply -f - --context={EXTERNAL}",
        ),
    ),
    *_gateway(CONFIG, "${REMOTE_CLUSTER_NAME}", 1),
    *_gateway(SECOND, "${SECOND_CLUSTER_NAME}", 2),
    Step(
        "",
        lines(
            f"kubectl --context={CONFIG} apply -n {NAMESPACE} -f",
            "samples/multicluster/expose-services.yaml",
        ),
    ),
    Step(
        "",
        f"istioctl --context={EXTERNAL} -i {NAMESPACE} remote-clusters",
        shows_output=True,
    ),
)

TOPOLOGIES: Mapping[str, Walkthrough] = {
    "external-control-plane": Walkthrough(
        "external-control-plane",
        (
            *OUTSIDE,
            *CONFIGURED,
            *REGISTERED,
            *workloads(2, asked=f"--context={EXTERNAL} -i {NAMESPACE}"),
        ),
        variables=NAMES,
    )
}
"""The walkthroughs with a control plane outside of the mesh."""
