"""The steps that join fifty clusters under one control plane, as a user types them.

One half of the clusters is on one network, one half on the other. Four of them run pods with
proxies; the others hold a Service whose endpoints are written by hand. The same steps join a dozen,
where fifty are too many.

Source: spec section 2.2; the primary-remote guide, once for every cluster.
"""

from collections.abc import Iterable, Mapping

from isthmus.cli import walkthrough
from isthmus.cli.walkthrough import Step, Walkthrough, lines

LEDGER = """\
for n in $(seq 1 COUNT); do
cat <<EOF > cluster$n.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: istio-system
  annotations: {topology.istio.io/controlPlaneClusters: cluster1}
  labels: {topology.istio.io/network: network$((1 + (n > HALF)))}
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

WRITTEN = """\
seq 1 COUNT | xargs -P 4 -I{} \\
    kubectl --context=cluster{} apply -f cluster{}.yaml | wc -l"""

REMOTE = """\
for n in 2 GATE COUNT; do
cat <<EOF > remote$n.yaml
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    istiodRemote:
      injectionPath: /inject/cluster/cluster$n/net/network$((1 + (n > HALF)))
    global:
      remotePilotAddress: ${DISCOVERY_ADDRESS}
EOF
isthmus install --context=cluster$n -y -f remote$n.yaml
done"""

LINK = """\
seq 2 COUNT | xargs -P 4 -I{} sh -c 'isthmus x create-remote-secret \\
    --context=cluster{} --name=cluster{} \\
    > cluster{}.secret 2> cluster{}.notes'
cat cluster*.secret | kubectl apply --context=cluster1 -f - | wc -l"""

SYNCED = """\
until isthmus --context=cluster1 remote-clusters > clusters.txt &&
    [ "$(grep -c ' synced ' clusters.txt)" = COUNT ]; do sleep 0.2; done
head -4 clusters.txt
grep -c ' synced ' clusters.txt"""

COUNTED = """\
kubectl --context=cluster1 -n istio-system exec deploy/istiod -- \\
    pilot-discovery request GET /v1/registration | \\
    grep -c '10\\.[0-9]*\\.200\\.1'"""

CHANGED = """\
began=$(date +%s%3N)
kubectl --context=CHANGING -n sample patch endpointslice ledger-by-hand \\
    --type=json -p '[{"op": "replace", "path": "/endpoints/0/addresses/0",
    "value": "MOVED"}]'
until kubectl --context=LAST -n sample exec deploy/sleep -c istio-proxy -- \\
    pilot-agent request GET clusters | grep -q MOVED; do :; done
echo "a proxy in LAST has it after $(($(date +%s%3N) - began)) ms"
"""

TAKEN = """\
kubectl --context=cluster1 -n istio-system exec deploy/istiod -- \\
    sh -c 'grep -h ^Pss: /proc/[0-9]*/smaps_rollup 2>/dev/null | \\
    sort -k2n | tail -1'"""


def _workloads(versions: Mapping[str, str]) -> Iterable[Step]:
    """Yield the steps that deploy a client in each of these clusters, and a service in some."""
    for context, version in versions.items():
        kubectl = f"kubectl --context={context} -n sample apply"
        manifest = "-f samples/helloworld/helloworld.yaml"
        service = lines(f"{kubectl} -l service=helloworld", manifest)
        yield Step(f"Deploy the samples in {context}", service)
        if version:
            yield Step("", lines(f"{kubectl} -l version={version}", manifest))
        yield Step("", f"{kubectl} -f samples/sleep/sleep.yaml")
    for context in versions:
        words = "wait --for=condition=Ready pod --all --timeout=300s"
        yield Step("", lines(f"kubectl --context={context} -n sample", words))


def _written(text: str, count: int) -> str:
    """Return a command for so many clusters."""
    changing = count - 3
    names = {
        "COUNT": str(count),
        "HALF": str(count // 2),
        "GATE": str(count // 2 + 1),
        "CHANGING": f"cluster{changing}",
        "LAST": f"cluster{count}",
        "MOVED": f"10.{changing + 9}.200.2",
    }
    for name, value in names.items():
        text = text.replace(name, value)
    return text.rstrip()


def _joined(count: int) -> Iterable[Step]:
    """Yield the steps after which one control plane watches all, and has proxies in four."""
    said = {25: "fifty", 6: "twelve"}[count // 2]
    gate = f"cluster{count // 2 + 1}"
    yield Step(
        f"Write a service with an endpoint in each of {said} clusters", _written(LEDGER, count)
    )
    yield Step("", _written(WRITTEN, count), shows_output=True)
    yield from walkthrough.TRUST
    yield from walkthrough.PRIMARY[1:]
    title = f"Let the control plane watch the other {count - 1} clusters"
    yield Step(title, _written(LINK, count), shows_output=True)
    yield Step("", _written(SYNCED, count), shows_output=True)
    yield Step(
        "Let three of them have proxies",
        lines(
            "kubectl --context=cluster1 -n istio-system get svc istio-eastwestgateway",
            "-o jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        ),
        variable="DISCOVERY_ADDRESS",
        shows_output=True,
    )
    yield Step("", _written(REMOTE, count))
    yield Step(
        "",
        lines(
            "samples/multicluster/gen-eastwest-gateway.sh",
            f"--mesh mesh1 --cluster {gate} --network network2 |",
            f"isthmus --context={gate} install -y -f -",
        ),
    )


def _seen(count: int) -> Iterable[Step]:
    """Yield the steps that show the whole at work, with figures."""
    yield Step(
        "Count the endpoints of one service in the control plane's view",
        COUNTED,
        shows_output=True,
    )
    yield Step(
        f"Change an endpoint in cluster{count - 3}", _written(CHANGED, count), shows_output=True
    )
    yield Step("Look at what the control plane takes, in kB", TAKEN, shows_output=True)


def _walkthrough(lab: str, count: int) -> Walkthrough:
    gate, last = f"cluster{count // 2 + 1}", f"cluster{count}"
    versions = {"cluster1": "v1", "cluster2": "", gate: "", last: "v2"}
    seen = walkthrough.verification(tuple(versions), asked="--context=cluster1")
    steps = (*_joined(count), *_workloads(versions), *seen, *_seen(count))
    return Walkthrough(lab, steps, clusters=count)


TOPOLOGIES: Mapping[str, Walkthrough] = {"fifty": _walkthrough("fifty", 50)}
"""The walkthroughs with many clusters."""

OF_TWELVE: Mapping[str, Walkthrough] = {"fifty": _walkthrough("twelve", 12)}
"""The same, smaller."""
