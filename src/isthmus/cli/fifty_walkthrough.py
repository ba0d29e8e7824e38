"""The steps that join fifty clusters under one control plane, as a user types them.

Clusters 1 to 25 are on one network, 26 to 50 on the other. Four of them run pods with proxies; the
others hold a Service whose endpoints are written by hand.

Source: spec section 2.2; the primary-remote guide, once for every cluster.
"""

from collections.abc import Mapping

from isthmus.cli import walkthrough
from isthmus.cli.walkthrough import Step, Walkthrough, lines

COUNT = 50
SECOND_GATEWAY = "cluster26"
VERSIONS: Mapping[str, str] = {"cluster1": "v1", "cluster50": "v2"}
"""Which version of the service runs where."""

CLIENTS = ("cluster1", "cluster2", SECOND_GATEWAY, "cluster50")
"""Where pods run that call it."""

LEDGER = """\
for n in $(seq 1 50); do
cat <<EOF > cluster$n.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: istio-system
  annotations: {topology.istio.io/controlPlaneClusters: cluster1}
  labels: {topology.istio.io/network: network$(((n + 24) / 25))}
---
apiVersion: v1
kind: Namespace
metadata: {name: sample, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: sample}
spec:
  ports: [{name: tcp, port: 9000}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: ledger-by-hand
  namespace: sample
  labels: {kubernetes.io/service-name: ledger}
addressType: IPv4
ports: [{name: tcp, port: 9000, protocol: TCP}]
endpoints: [{addresses: [10.$((n + 9)).200.1], conditions: {ready: true}}]
EOF
done"""

REMOTE = """\
for n in 2 26 50; do
cat <<EOF > remote$n.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    istiodRemote:
      injectionPath: /inject/cluster/cluster$n/net/network$(((n + 24) / 25))
    global:
      remotePilotAddress: ${DISCOVERY_ADDRESS}
EOF
isthmus install --context=cluster$n -y -f remote$n.yaml
done"""

LINK = """\
seq 2 50 | xargs -P 4 -I{} sh -c 'isthmus x create-remote-secret \\
    --context=cluster{} --name=cluster{} > cluster{}.secret 2> cluster{}.notes'
cat cluster*.secret | kubectl apply --context=cluster1 -f - | wc -l"""

SYNCED = """\
until isthmus --context=cluster1 remote-clusters > clusters.txt &&
    [ "$(grep -c ' synced ' clusters.txt)" = 50 ]; do sleep 0.2; done
cat clusters.txt"""

CHANGED = """\
began=$(date +%s%3N)
kubectl --context=cluster47 -n sample patch endpointslice ledger-by-hand --type=json \\
    -p '[{"op": "replace", "path": "/endpoints/0/addresses/0", "value": "10.56.200.2"}]'
until kubectl --context=cluster50 -n sample exec deploy/sleep -c istio-proxy -- \\
    pilot-agent request GET clusters | grep -q 10.56.200.2; do :; done
echo "a proxy in cluster50 has it $(($(date +%s%3N) - began)) ms after the command was typed\""""


def _workloads() -> tuple[Step, ...]:
    steps: list[Step] = []
    for context in CLIENTS:
        kubectl = f"kubectl --context={context} -n sample"
        manifest = "-f samples/helloworld/helloworld.yaml"
        applied = [f"{kubectl} apply -l service=helloworld {manifest}"]
        if context in VERSIONS:
            applied.append(f"{kubectl} apply -l version={VERSIONS[context]} {manifest}")
        applied.append(f"{kubectl} apply -f samples/sleep/sleep.yaml")
        steps.append(Step(f"Deploy the samples in {context}", " &&\n".join(applied)))
    for context in CLIENTS:
        words = "wait --for=condition=Ready pod --all --timeout=60s"
        steps.append(Step("", lines(f"kubectl --context={context} -n sample", words)))
    return tuple(steps)


JOINED = (
    Step("Write a service with an endpoint in each of fifty clusters", LEDGER),
    Step(
        "",
        "seq 1 50 | xargs -P 4 -I{} kubectl --context=cluster{} apply -f cluster{}.yaml | wc -l",
        shows_output=True,
    ),
    *walkthrough.TRUST,
    *walkthrough.PRIMARY[1:],
    Step("Let the control plane watch the other 49 clusters", LINK, shows_output=True),
    Step("", SYNCED, shows_output=True),
    Step(
        "Let three of them have proxies",
        lines(
            "kubectl --context=cluster1 -n istio-system get svc istio-eastwestgateway",
            "-o jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        ),
        variable="DISCOVERY_ADDRESS",
        shows_output=True,
    ),
    Step("", REMOTE),
    Step(
        "",
        lines(
            "samples/multicluster/gen-eastwest-gateway.sh",
            f"--mesh mesh1 --cluster {SECOND_GATEWAY} --network network2 |",
            f"isthmus --context={SECOND_GATEWAY} install -y -f -",
        ),
    ),
)

SEEN = (
    Step(
        "Count the endpoints of one service in the control plane's view",
        lines(
            "kubectl --context=cluster1 -n istio-system exec deploy/istiod --",
            "pilot-discovery request GET /v1/registration | grep -c '10\\.[0-9]*\\.200\\.1'",
        ),
        shows_output=True,
    ),
    Step("Change an endpoint in cluster47", CHANGED, shows_output=True),
    Step(
        "Look at what the control plane takes, in kB",
        lines(
            "kubectl --context=cluster1 -n istio-system exec deploy/istiod --",
            "sh -c 'cat /proc/[0-9]*/smaps_rollup 2>/dev/null | grep ^Pss: | sort -k2n | tail -1'",
        ),
        shows_output=True,
    ),
)

TOPOLOGIES: Mapping[str, Walkthrough] = {
    "fifty": Walkthrough(
        "fifty",
        (
            *JOINED,
            *_workloads(),
            *walkthrough.verification(CLIENTS, asked="--context=cluster1"),
            *SEEN,
        ),
    )
}
"""The walkthroughs with many clusters."""
