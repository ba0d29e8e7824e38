"""Control planes of two clusters with a socket each, and the objects of both written by hand."""

import contextlib
import datetime

import grpc
import msgspec

from fakes import kube_server
from isthmus.base import clock, metrics, tasks
from isthmus.ca import listing
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api, objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, peering
from isthmus.testing import certificates, pace, shapes
from isthmus.wire import ads, grpc_tls, peerclient, tls

DEADLINE_S = pace.patience(20.0)
PACE = peerclient.Pace(0.2, 10.0)
NOTHING = datetime.timedelta()
BORN = clock.SystemClock().now().replace(microsecond=0)


async def until(holds):
    """Wait until something holds."""
    await kube_server.eventually(holds, within_s=DEADLINE_S)


class OldClock(clock.SystemClock):
    """Tells what time it was a while ago."""

    def __init__(self, age):
        self.age = age
        self.later_s = 0.0

    def now(self):
        return super().now() - self.age

    def monotonic(self):
        return super().monotonic() + self.later_s


def signed(name, **changes):
    """Return what signs in a cluster, below the root of all, made a month ago."""
    made = BORN - datetime.timedelta(days=30)
    return certificates.signer(name, now=made, **changes)


async def nothing(_):
    return []


class Plane:
    """One control plane."""

    def __init__(self, name, *, network, domain="cluster.local", signer=None, **more):
        self.name, self.network, self.domain = name, network, domain
        self.mesh = assembly.assemble(
            config_cluster=ClusterId(name),
            revision="default",
            system_namespace="istio-system",
            domain="cluster.local",
        )
        self.clock = OldClock(more.get("age", NOTHING))
        self.signer = signer or signed(name)
        self.reason = ""
        self.measures = metrics.Metrics()
        self.peering = peering.Peering(
            self.mesh,
            place=peering.Place(
                ClusterId(name),
                address="127.0.0.1",
                port=more.get("port", 0),
                pace=more.get("pace", PACE),
                dialled=lambda _: "127.0.0.1",
                recall=more.get("recall", nothing),
            ),
            authority=lambda: self.signer,
            unready=lambda: self.reason,
            system_clock=self.clock,
            registered=self.measures,
        )
        labels = {"topology.istio.io/network": network}
        self.put("namespaces", objects.Namespace(shapes.metadata("istio-system", "", labels)))
        self.configure(trustDomain=domain)

    def put(self, kind, object_):
        metadata = object_.metadata
        key = ObjectKey(ClusterId(self.name), metadata.namespace, metadata.name)
        with self.mesh.graph.transaction() as transaction:
            transaction.put(getattr(self.mesh.sources, kind), key, object_)

    def delete(self, kind, namespace, name):
        key = ObjectKey(ClusterId(self.name), namespace, name)
        with self.mesh.graph.transaction() as transaction:
            transaction.delete(getattr(self.mesh.sources, kind), key)

    def configure(self, **settings):
        text = msgspec.json.encode(settings).decode()
        self.put(
            "config_maps",
            objects.ConfigMap(shapes.metadata("istio", "istio-system"), data={"mesh": text}),
        )

    def share(self, name, *, namespace="sample", scope="global", ready=()):
        labels = {"solo.io/service-scope": scope} if scope else {}
        port = objects.ServicePort(name="http", port=80, protocol="TCP", app_protocol="http")
        self.put(
            "services",
            objects.Service(
                shapes.metadata(name, namespace, labels),
                spec=objects.ServiceSpec(cluster_ip="10.9.0.1", ports=(port,)),
            ),
        )
        for address in ready:
            self.pod(f"{name}-{address}", namespace, address)
        members = tuple(
            objects.SliceEndpoint(
                addresses=(address,),
                conditions=objects.EndpointConditions(ready=True),
                target_ref=objects.ObjectReference("Pod", f"{name}-{address}", namespace),
            )
            for address in ready
        )
        self.put(
            "endpoint_slices",
            objects.EndpointSlice(
                shapes.metadata(name, namespace, {"kubernetes.io/service-name": name}),
                address_type="IPv4",
                endpoints=members,
                ports=(objects.EndpointPort(name="http", port=8080),),
            ),
        )

    def pod(self, name, namespace, address):
        captured = {"ambient.istio.io/redirection": "enabled"}
        self.put(
            "pods",
            objects.Pod(
                shapes.metadata(name, namespace, {}, captured),
                spec=objects.PodSpec(node_name="n", service_account_name="app"),
                status=objects.PodStatus(phase="Running", pod_ip=address),
            ),
        )

    def link(self, other, *, port=None, network=None, domain=None, cluster=None, **more):
        """Link to another control plane; gateways have addresses that no test has."""
        metadata = {
            "name": f"istio-remote-{other.name}",
            "namespace": "istio-gateways",
            "labels": {
                "topology.istio.io/network": network or other.network,
                "topology.istio.io/cluster": cluster or other.name,
            },
            "annotations": {"isthmus.dev/trust-domain": domain or other.domain} | more,
        }
        spec = {
            "gatewayClassName": "istio-remote",
            "addresses": [{"value": "192.0.2.1"}],
            "listeners": [
                {"name": "cross-network", "port": 15008, "protocol": "HBONE"},
                {"name": "xds-tls", "port": port or other.peering.port, "protocol": "TLS"},
            ],
        }
        written = {"metadata": metadata, "spec": spec}
        self.put("kubernetes_gateways", msgspec.convert(written, gateway_api.Gateway))

    def believe(self, other, signer=None):
        """List who signs for the trust domain of another control plane."""
        found = listing.Signer(
            ClusterId(other.name),
            other.domain,
            ((signer or other.signer).issuer.certificate,),
        )
        written = listing.manifest(found, namespace="istio-system")
        self.put("trust_bundles", msgspec.convert(written, objects.ConfigMap))

    def unlink(self, other):
        self.delete("kubernetes_gateways", "istio-gateways", f"istio-remote-{other.name}")

    def imports(self):
        """Return how many ready pods are known of each imported service, by `<peer>/<name>`."""
        found = self.mesh.graph.items(self.mesh.model.peers.imports)
        return {f"{key.peer}/{key.name}": one.pods for key, one in found.items()}

    def status(self):
        (status,) = self.peering.statuses()
        return status

    def codes(self):
        return {one.code for one in self.peering.findings()}


@contextlib.asynccontextmanager
async def running(*planes):
    """Run control planes until the end of the block; each keeps the port that it once had."""
    async with tasks.Nursery() as nursery:
        for plane in planes:
            _ = nursery.start(plane.name, plane.peering.run())
        for plane in planes:
            await until(lambda plane=plane: plane.peering.port)
        yield


@contextlib.asynccontextmanager
async def deaf():
    """Serve TLS for beta, accept every call, and never answer one."""
    now = clock.SystemClock().now()
    found = tls.issue(signed("beta"), names=("istiod.beta.cluster.local",), now=now)
    server = grpc.aio.server()

    async def silent(_, context):
        while await context.read() is not grpc.aio.EOF:
            pass

    handler = grpc.stream_stream_rpc_method_handler(silent)
    methods = {"DeltaAggregatedResources": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ads.SERVICE, methods),))
    port = server.add_secure_port("127.0.0.1:0", grpc_tls.server_credentials(tls.Serving(found)))
    await server.start()
    yield port
    await server.stop(None)
