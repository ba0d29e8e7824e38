"""Whatever ServiceEntries say, what comes of them is what Envoy takes."""

import hypothesis
from hypothesis import strategies

from isthmus.testing import builders, envoys, shapes

HOSTS = [
    "a.example.com",
    "b.example.com",
    "*.example.com",
    "*.com",
    "web.default.svc.cluster.local",
]
ADDRESSES = ["192.0.2.1", "192.0.2.2", "10.96.0.1", "2001:db8::1", "::ffff:192.0.2.1"]
PROTOCOLS = ["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP", "MONGO", "", "UDP"]


def some(**fields):
    return strategies.fixed_dictionaries({}, optional=fields)


def lists(values, size):
    return strategies.lists(values, min_size=1, max_size=size)


ENDPOINTS = some(
    address=strategies.sampled_from(
        ["203.0.113.1", "vm.example.com", "2001:db8::2", "", "unix:/a"]
    ),
    ports=some(a=strategies.integers(-1, 70000)),
    network=strategies.sampled_from(["n", "m", ""]),
    locality=strategies.sampled_from(["r/z/s", "r", ""]),
    weight=strategies.integers(-1, 200),
    serviceAccount=strategies.sampled_from(["default", ""]),
)
PORTS = strategies.builds(
    lambda number, name, protocol: {"number": number, "name": name, "protocol": protocol},
    strategies.sampled_from([80, 443, 5432, 15001, 15006, 0, 65535]),
    strategies.sampled_from(["a", "b", "c", ""]),
    strategies.sampled_from(PROTOCOLS),
)
ENTRIES = strategies.fixed_dictionaries(
    {"hosts": lists(strategies.sampled_from(HOSTS), 3), "ports": lists(PORTS, 3)},
    optional={
        "addresses": lists(strategies.sampled_from(ADDRESSES), 2),
        "location": strategies.sampled_from(["MESH_INTERNAL", "MESH_EXTERNAL"]),
        "resolution": strategies.sampled_from(["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"]),
        "endpoints": lists(ENDPOINTS, 3),
    },
)


def told(entries):
    """Return what sidecars, with agents that answer for names and without, and a gateway hear."""
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    cluster.service("web", ready=["10.1.0.1"], ports={"http": 80, "tcp": 5432, "tls": 443})
    mesh.cluster("d", network="m").gateway(external="172.30.0.1")
    mesh.expose_services("*")
    asked = [{"sniHosts": ["a.example.com", "b.example.com"]}]
    routes = [
        {"match": asked, "route": [{"destination": {"host": "web", "port": {"number": 443}}}]}
    ]
    mesh.virtual_service("both", {"hosts": ["a.example.com", "b.example.com"], "tls": routes})
    for number, entry in enumerate(entries):
        mesh.service_entry(f"it-{number}", entry)
    pods = [cluster.pod(f"client{dns}", shape=shapes.Shape(dns=dns)) for dns in ("", "allocated")]
    for pod in (*pods, mesh.pod_at("172.30.0.1", network="")):
        seen = mesh.snapshot_of(pod)
        yield [one for kind in envoys.MESSAGES for one in seen.of(kind).values()]


@hypothesis.settings(
    max_examples=8,
    phases=[hypothesis.Phase.generate],  # to shrink many entries takes minutes
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(strategies.lists(ENTRIES, min_size=8, max_size=8))
def test_envoy_takes_what_comes_of_any_service_entries(tmp_path_factory, entries):
    for resources in told(entries):
        complaint = envoys.complaint_about(resources, directory=tmp_path_factory.mktemp("entries"))
        assert complaint == ""
