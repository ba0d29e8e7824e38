"""East-west gateways are no open relay, and the control plane behind them believes only proofs.

A stranger stands on a node of the other cluster: between the networks, without any proxy. It
counts every byte that comes back.
"""

import base64
import datetime
import json

import pytest
import traffic
import wires
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.base import clock

pytestmark = pytest.mark.lab

CLUSTERS = ("cluster1", "cluster2")
OTHER = {"cluster1": "cluster2", "cluster2": "cluster1"}
MTLS, DISCOVERY = 15443, 15012
MESH_ALPN = ("istio-peer-exchange", "istio")
REQUEST = "GET /hello HTTP/1.1\r\nHost: helloworld\r\nConnection: close\r\n\r\n"
HELLO = "outbound_.5000_._.helloworld.sample.svc.cluster.local"
SERVED = "helloworld.sample.svc.cluster.local"
SERVER = ["spiffe://cluster.local/ns/sample/sa/default"]
AUDIENCE = "istio-ca"
ISTIOD = "istiod.istio-system.svc"


class Stranger:
    """Somebody on a node of one cluster who knocks at the gateway of the other."""

    def __init__(self, mesh, home):
        self.mesh = mesh
        self.home = home
        self.far = OTHER[home]
        self.wires = wires.Wires(mesh)
        self.place = self.wires.node(home, 0)
        service = mesh.json_of(self.far, "service -n istio-system istio-eastwestgateway")
        self.gateway = service["status"]["loadBalancer"]["ingress"][0]["ip"]

    def knock(self, *attempts):
        """Send a request in each of some ways; return what came back."""
        usual = {"host": self.gateway, "port": MTLS, "send": REQUEST, "timeout": 3.0}
        return self.wires.knock([{**usual, **each} for each in attempts], at=self.place)

    def call(self, *, token, cluster, csr):
        """Ask for a certificate through the gateway of cluster1."""
        request = {
            "target": f"{self.gateway}:{DISCOVERY}",
            "name": ISTIOD,
            "roots": roots_of(self.mesh),
            "csr": csr,
            "token": token,
            "cluster": cluster,
        }
        return self.wires.ask({"do": "sign", "request": request}, at=self.place)


@pytest.fixture(scope="module", params=CLUSTERS)
def stranger(mesh, request):
    return Stranger(mesh, request.param)


@pytest.fixture(scope="module")
def caller(mesh):
    """A stranger in cluster2, from where the control plane is reached through the gateway."""
    return Stranger(mesh, "cluster2")


@pytest.fixture(scope="module")
def member(mesh, caller):
    """A valid certificate of the mesh, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    token = token_of(mesh, "cluster2", audience=AUDIENCE)
    answer = caller.call(token=token, cluster="cluster2", csr=csr_of(key))
    assert answer["status"] == "OK", answer
    chain = answer["chain"]
    return {"certificate": "".join(chain[:-1]), "key": pem_of(key), "alpn": MESH_ALPN}


def roots_of(mesh):
    config = mesh.json_of("cluster2", "configmap -n sample istio-ca-root-cert")
    return config["data"]["root-cert.pem"]


def token_of(mesh, cluster, *, audience, pod=""):
    bound = f" --bound-object-kind Pod --bound-object-name {pod}" if pod else ""
    wish = f" --audience {audience}" if audience else ""
    command = f"create token -n sample sleep{wish}{bound}"
    return mesh.kubectl(cluster, command).strip()


def csr_of(key, *, names=()):
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "story")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        request = request.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def names_in(certificate):
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in extension.value]


def served_by(answer):
    """Return the names in the certificate that somebody showed."""
    return names_in(x509.load_der_x509_certificate(base64.b64decode(answer["served"])))


def of_another_root():
    """Return a certificate with a good name that another root has signed."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = clock.SystemClock().now()
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Another Root")])
    name = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/sample/sa/sleep")
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    pem = leaf.public_bytes(serialization.Encoding.PEM).decode()
    return {"certificate": pem, "key": pem_of(key), "alpn": MESH_ALPN}


def all_server_names(mesh):
    """Yield a server name for every port of every service of both clusters."""
    for cluster in CLUSTERS:
        for service in mesh.json_of(cluster, "services -A")["items"]:
            home = service["metadata"]["namespace"]
            for port in service["spec"]["ports"]:
                host = f"{service['metadata']['name']}.{home}.svc.cluster.local"
                yield f"outbound_.{port['port']}_._.{host}"


ODD_NAMES = {
    "a service that is not there": "outbound_.5000_._.nothing.sample.svc.cluster.local",
    "a port that is not there": "outbound_.5001_._.helloworld.sample.svc.cluster.local",
    "the pod's own port": "outbound_.15006_._.helloworld.sample.svc.cluster.local",
    "a subset that is not there": "outbound_.5000_.v1_.helloworld.sample.svc.cluster.local",
    "another namespace": "outbound_.5000_._.helloworld.default.svc.cluster.local",
    "another domain": "outbound_.5000_._.helloworld.sample.svc.example.com",
    "a name within": f"a.{HELLO}",
    "a name of which it is the end": HELLO.partition(".")[2],
    "the plain host": SERVED,
    "the name of a cluster": HELLO.replace("_", "|"),
    "a wildcard": "*.sample.svc.cluster.local",
    "a wildcard of all": "*",
    "an address": "10.10.1.3",
    "a very long one": "a" * 63 + ("." + "b" * 60) * 3,
    "one that ends early": f"{HELLO}\0.example.com",
    "one that begins late": f"\0{HELLO}",
    "one with a line end": f"{HELLO}\r\nHost: x",
    "one with a space": f"{HELLO} ",
    "no characters": "\xff\xfe\xfd",
    "the control plane": "istiod.istio-system.svc",
    "the control plane's port": "outbound_.15012_._.istiod.istio-system.svc.cluster.local",
    "the monitoring port": "outbound_.15014_._.istiod.istio-system.svc.cluster.local",
    "the gateway itself": "outbound_.15443_._.istio-eastwestgateway.istio-system.svc.cluster.local",
    "the API server": "outbound_.443_._.kubernetes.default.svc.cluster.local",
}


def test_a_member_of_the_mesh_is_let_through_so_that_silence_means_refusal(stranger, member):
    (answer,) = stranger.knock({**member, "sni": HELLO})

    assert answer["text"].startswith("HTTP/1.1 200"), answer
    assert served_by(answer) == SERVER


@pytest.mark.parametrize("has_certificate", [True, False], ids=["member", "nobody"])
def test_no_byte_comes_back_for_any_other_server_name(stranger, member, has_certificate):
    with_what = member if has_certificate else {"alpn": MESH_ALPN}
    names = list(ODD_NAMES.values())
    answers = stranger.knock(*({**with_what, "wire_sni": name} for name in names))
    heard = {name: answer for name, answer in zip(ODD_NAMES, answers, strict=True) if answer["raw"]}

    assert heard == {}


def test_only_services_whose_pods_have_proxies_answer_at_all(stranger, member, mesh):
    names = sorted(set(all_server_names(mesh)))
    answers = stranger.knock(*({**member, "sni": name} for name in names))
    open_ones = {name for name, answer in zip(names, answers, strict=True) if answer["raw"]}

    assert len(names) > 10
    assert open_ones == {HELLO, "outbound_.80_._.sleep.sample.svc.cluster.local"}


WAYS = {
    "plain HTTP": {"tls": False},
    "plain text": {"tls": False, "send": "hello\r\n\r\n"},
    "HTTP/2 without TLS": {"tls": False, "send": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    "to be passed on": {"tls": False, "send": f"CONNECT {SERVED}:5000 HTTP/1.1\r\n\r\n"},
    "by the PROXY protocol": {"tls": False, "send": "PROXY TCP4 10.0.0.1 10.10.2.4 1 5000\r\n"},
    "a broken record": {"tls": False, "send": "\x16\x03\x01\x7f\x7f" + "\x01" * 64},
    "no server name": {"alpn": MESH_ALPN},
    "no protocol of the mesh": {"sni": HELLO},
    "another protocol": {"sni": HELLO, "alpn": ("h2", "http/1.1")},
}


@pytest.mark.parametrize("has_certificate", [True, False], ids=["member", "nobody"])
def test_no_byte_comes_back_for_what_is_not_the_mesh_s_own_tls(stranger, member, has_certificate):
    proof = {key: member[key] for key in ("certificate", "key")} if has_certificate else {}
    answers = stranger.knock(*({**proof, **way} for way in WAYS.values()))
    heard = {name: answer for name, answer in zip(WAYS, answers, strict=True) if answer["raw"]}

    assert heard == {}


def test_a_service_that_is_not_exported_has_no_door(stranger, member, mesh):
    manifest = """
apiVersion: v1
kind: Service
metadata:
  name: private
  namespace: sample
  annotations: {networking.istio.io/exportTo: "."}
spec:
  selector: {app: helloworld}
  ports: [{name: http, port: 5000}]
"""
    name = HELLO.replace("helloworld", "private")
    for cluster in CLUSTERS:
        mesh.kubectl(cluster, "apply -f -", stdin=manifest)
    try:
        public = manifest.replace('"."', '"*"')
        for cluster in CLUSTERS:
            mesh.kubectl(cluster, "apply -f -", stdin=public)
        traffic.until(lambda: stranger.knock({**member, "sni": name})[0]["text"])
        for cluster in CLUSTERS:
            mesh.kubectl(cluster, "apply -f -", stdin=manifest)
        traffic.until(lambda: not stranger.knock({**member, "sni": name})[0]["raw"])
    finally:
        for cluster in CLUSTERS:
            mesh.kubectl(cluster, "delete service -n sample private")


def test_without_a_certificate_the_destination_gives_no_byte_of_its_service(stranger):
    (answer,) = stranger.knock({"sni": HELLO, "alpn": MESH_ALPN})

    assert answer["text"] == ""
    assert served_by(answer) == SERVER
    assert "CERTIFICATE_REQUIRED" in answer["end"]


def test_a_certificate_of_another_root_is_refused_by_the_destination(stranger):
    (answer,) = stranger.knock({**of_another_root(), "sni": HELLO})

    assert answer["text"] == ""
    assert served_by(answer) == SERVER
    assert "UNKNOWN_CA" in answer["end"] or "CERTIFICATE" in answer["end"], answer["end"]


def key_and_csr():
    return csr_of(ec.generate_private_key(ec.SECP256R1()))


CLAIMS = {
    "no token": ("", "cluster2"),
    "a token that is none": ("nonsense", "cluster2"),
    "no cluster": ("cluster2", ""),
    "an unknown cluster": ("cluster2", "cluster9"),
    "another cluster": ("cluster2", "cluster1"),
    "the other way round": ("cluster1", "cluster2"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_control_plane_signs_nothing_without_a_proof(caller, mesh, claim):
    origin, claimed = CLAIMS[claim]
    token = token_of(mesh, origin, audience=AUDIENCE) if origin in CLUSTERS else origin
    answer = caller.call(token=token, cluster=claimed, csr=key_and_csr())

    assert answer == {
        "status": "UNAUTHENTICATED",
        "details": "request authenticate failure",
        "chain": [],
    }


@pytest.mark.parametrize("audience", ["", "vault", "istio-ca-2"])
def test_tokens_for_others_prove_nothing(caller, mesh, audience):
    token = token_of(mesh, "cluster2", audience=audience)
    answer = caller.call(token=token, cluster="cluster2", csr=key_and_csr())

    assert answer["status"] == "UNAUTHENTICATED"
    assert answer["chain"] == []


def test_the_token_of_a_pod_proves_nothing_once_the_pod_is_gone(caller, mesh):
    pod = wires.pod_of(mesh, "cluster2", "app=sleep")["metadata"]["name"]
    used, unused = (token_of(mesh, "cluster2", audience=AUDIENCE, pod=pod) for _ in range(2))
    before = caller.call(token=used, cluster="cluster2", csr=key_and_csr())
    mesh.kubectl("cluster2", f"delete pod -n sample {pod}")
    after = caller.call(token=unused, cluster="cluster2", csr=key_and_csr())
    traffic.until(lambda: traffic.is_ready(wires.pod_of(mesh, "cluster2", "app=sleep")))

    assert before["status"] == "OK"
    assert after["status"] == "UNAUTHENTICATED"


def test_a_request_with_other_names_gets_only_the_caller_s_own(caller, mesh):
    names = [
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/istiod"),
        x509.DNSName("istiod.istio-system.svc"),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    token = token_of(mesh, "cluster2", audience=AUDIENCE)
    answer = caller.call(token=token, cluster="cluster2", csr=csr_of(key, names=names))
    leaf = x509.load_pem_x509_certificate(answer["chain"][0].encode())

    assert names_in(leaf) == ["spiffe://cluster.local/ns/sample/sa/sleep"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.public_key() == key.public_key()


def test_the_webhook_behind_the_gateway_says_nothing_about_the_mesh(caller):
    ways = [
        f"{verb} {path}" for verb in ("GET", "POST") for path in ("/", "/debug/syncz", "/metrics")
    ]
    answers = caller.knock(
        *(
            {
                "port": 15017,
                "sni": ISTIOD,
                "send": f"{way} HTTP/1.1\r\nHost: istiod\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n",
            }
            for way in ways
        )
    )

    assert {answer["text"].split()[1] for answer in answers} <= {"404", "405"}
    for answer in answers:
        assert "cluster" not in json.dumps(answer["text"])
