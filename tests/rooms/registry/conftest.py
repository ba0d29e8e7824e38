"""A mesh to be: objects of clusters go in, the model comes out."""

import pytest

from isthmus.engine import graph
from isthmus.fleet import sources
from isthmus.kube import objects, packed
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import WorkloadKey
from isthmus.registry import model, settings

SYSTEM = "istio-system"


class World:
    """Clusters `c1` (which holds the configuration), `c2` and so on, with few words."""

    def __init__(self, **options) -> None:
        self.graph = graph.Graph()
        self.sources = sources.declare(self.graph)
        if options.pop("skips_domains", False):
            seat = settings.Seat("c1", skips_domains=True)
            self.model = model.seated(self.graph, self.sources, seat=seat)
        else:
            self.model = model.build(self.graph, self.sources, config_cluster="c1", **options)

    def put(self, source, cluster, object_) -> None:
        meta = object_.metadata
        with self.graph.transaction() as change:
            change.put(source, sources.ObjectKey(cluster, meta.namespace, meta.name), object_)

    def delete(self, source, cluster, name, namespace="default") -> None:
        with self.graph.transaction() as change:
            change.delete(source, sources.ObjectKey(cluster, namespace, name))

    def settings(self, mesh="", networks="", cluster="c1", name="istio") -> None:
        content = {"mesh": mesh, "meshNetworks": networks}
        self.put(
            self.sources.config_maps,
            cluster,
            objects.ConfigMap(metadata=meta(name, SYSTEM), data=content),
        )

    def network(self, cluster, network) -> None:
        labels = {"topology.istio.io/network": network} if network else {}
        self.put(
            self.sources.namespaces, cluster, objects.Namespace(metadata=meta(SYSTEM, "", labels))
        )

    def node(self, cluster, name, **labels) -> None:
        texts = {f"topology.kubernetes.io/{key}": value for key, value in labels.items()}
        self.put(self.sources.nodes, cluster, objects.Node(metadata=meta(name, "", texts)))

    def service(self, cluster="c1", name="web", namespace="default", **fields) -> None:
        labels, annotations = fields.pop("labels", {}), fields.pop("annotations", {})
        ingress = tuple(
            objects.LoadBalancerIngress(**{("ip" if at[0].isdigit() else "hostname"): at})
            for at in fields.pop("ingress", ())
        )
        ports = fields.pop("ports", {"http": 80})
        if isinstance(ports, dict):
            ports = tuple(port(name_, number) for name_, number in ports.items())
        self.put(
            self.sources.services,
            cluster,
            objects.Service(
                metadata=meta(name, namespace, labels, annotations),
                spec=objects.ServiceSpec(**{"cluster_ip": "10.96.0.1", "ports": ports, **fields}),
                status=objects.ServiceStatus(objects.LoadBalancerStatus(ingress)),
            ),
        )

    def gateway_service(self, cluster="c2", network="n2", **fields) -> None:
        labels = {"topology.istio.io/network": network, **fields.pop("labels", {})}
        fields = {"ports": {"tls": 15443}, "type": "LoadBalancer", **fields}
        self.service(cluster, "eastwest", SYSTEM, labels=labels, **fields)

    def pod(self, cluster="c1", name="web-1", ip="10.1.0.1", namespace="default", **fields) -> None:
        labels = {"security.istio.io/tlsMode": "istio", **fields.pop("labels", {})}
        owners, phase = fields.pop("owners", ()), fields.pop("phase", "Running")
        deleted = fields.pop("deletion_timestamp", None)
        annotations = fields.pop("annotations", None)
        pod = objects.Pod(
            metadata=objects.Metadata(
                name=name,
                namespace=namespace,
                labels=labels,
                annotations=annotations,
                owner_references=owners,
                deletion_timestamp=deleted,
            ),
            spec=objects.PodSpec(**{"node_name": "node-1", **fields}),
            status=objects.PodStatus(phase=phase, pod_ip=ip),
        )
        self.put(self.sources.pods, cluster, packed.pod(pod))

    def slice(self, cluster="c1", name="web-x", service="web", members=(), **fields) -> None:
        labels = {"kubernetes.io/service-name": service}
        ports = fields.pop("ports", (objects.EndpointPort(port=8080, name="http"),))
        namespace = fields.pop("namespace", "default")
        self.put(
            self.sources.endpoint_slices,
            cluster,
            objects.EndpointSlice(
                metadata=meta(name, namespace, labels),
                endpoints=tuple(members),
                ports=ports,
                **fields,
            ),
        )

    def serving(self, cluster="c1", ip="10.1.0.1", pod="web-1", name="web-x", **fields) -> None:
        """A pod and a slice that names it."""
        self.pod(cluster, pod, ip, **fields)
        self.slice(cluster, name, members=[member(ip, pod=pod)])

    def istio(self, source, name="it", namespace="default", cluster="c1", **spec) -> None:
        object_ = objects.FreeForm(metadata=meta(name, namespace), spec=spec)
        self.put(source, cluster, object_)

    # --- what came of it

    @property
    def mesh(self):
        return self.graph.value(self.model.settings)

    @property
    def network_gateways(self):
        return [
            (gateway.network, gateway.cluster, gateway.address, gateway.port, gateway.hbone_port)
            for gateway in self.graph.value(self.model.network_gateways)
        ]

    def the_service(self, name="web", namespace="default"):
        return self.graph.get(self.model.services, ServiceKey(namespace, name))

    def endpoints(self, name="web"):
        found = self.graph.get(self.model.endpoints, ServiceKey("default", name))
        return None if found is None else tuple(found)

    def addresses(self, name="web"):
        return [endpoint.address for endpoint in self.endpoints(name)]

    def accounts(self, name="web"):
        return self.graph.get(self.model.accounts, ServiceKey("default", name))

    def workload(self, name="web-1", cluster="c1"):
        return self.graph.get(self.model.workloads, WorkloadKey(cluster, "default", name))

    def only(self, collection):
        [value] = self.graph.items(collection).values()
        return value

    @property
    def findings(self):
        assert self.graph.findings() == ()
        return [
            f"{found.code} {found.subject}: {found.happened}"
            for found in self.graph.items(self.model.findings).values()
        ]


def meta(name, namespace="default", labels=None, annotations=None):
    return objects.Metadata(
        name=name, namespace=namespace, labels=labels or {}, annotations=annotations or {}
    )


def port(name, number):
    return objects.ServicePort(port=number, name=name)


def member(ip, *, pod="", **fields):
    conditions = objects.EndpointConditions(
        **{key: fields.pop(key) for key in ("ready", "serving", "terminating") if key in fields}
    )
    reference = objects.ObjectReference(kind="Pod", name=pod) if pod else None
    return objects.SliceEndpoint(
        addresses=(ip,), conditions=conditions, target_ref=reference, **fields
    )


@pytest.fixture
def world():
    return World()


@pytest.fixture(name="member")
def member_fixture():
    return member


@pytest.fixture
def make_world():
    return World
