"""A cluster's own certificates: its authority, the server's, the administrator's, the token key.

It decides names, lifetimes and usages. It refuses to know where they are kept, and who asks.

What the assembly of a cluster needs::

    authority = pki.make_cluster_authority("cluster1", now=clock.now(), cluster_ip="10.96.0.1",
                                           addresses=["172.30.0.3"])
    tls = pki.server_context(authority)          # for the HTTPS listener; client certificates ask
    admin = authority.admin                      # Pair(certificate_pem, key_pem), system:masters
    kubelet = authority.client("system:node:n1", organizations=("system:nodes",), now=clock.now())
    text = pki.kubeconfig(authority, name="cluster1", server="https://127.0.0.1:6443")
"""

import base64
import datetime
import ipaddress
import pathlib
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.base import clock

_LIFE = datetime.timedelta(days=365)
_SKEW = datetime.timedelta(minutes=5)
_SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate_pem: str
    key_pem: str


@dataclass(frozen=True, slots=True)
class Authority:
    """Everything that one cluster signs with.

    Attributes:
        cluster: The cluster's name, for the subject of its authority.
        root: The authority's own certificate and key.
        serving: What the API server shows.
        admin: The client certificate of `kubernetes-admin`.
        token_key_pem: The private key that signs service account tokens.
    """

    cluster: str
    root: Pair
    serving: Pair
    admin: Pair
    token_key_pem: str

    @property
    def ca_pem(self) -> str:
        """The certificate that clients trust."""
        return self.root.certificate_pem

    def client(self, name: str, *, organizations: Iterable[str] = (), now: clock.Instant) -> Pair:
        """Sign a client certificate: `name` is the user, `organizations` its groups."""
        return _client(self.root, name, tuple(organizations), now)


def make_cluster_authority(
    cluster: str, *, now: clock.Instant, cluster_ip: str, addresses: Sequence[str] = ()
) -> Authority:
    """Make a new cluster's authority with everything that it has to sign at once.

    Args:
        cluster: The cluster's name.
        now: The moment from which the certificates hold, less five minutes of skew.
        cluster_ip: The address of the Service `kubernetes`.
        addresses: Further addresses or names at which the server is reached.
    """
    root = _root(cluster, now)
    return Authority(
        cluster=cluster,
        root=root,
        serving=_serving(root, ("127.0.0.1", "::1", cluster_ip, *addresses), now),
        admin=_client(root, "kubernetes-admin", ("system:masters",), now),
        token_key_pem=_key_pem(_new_key()),
    )


def server_context(authority: Authority) -> ssl.SSLContext:
    """Return the listener's TLS settings: client certificates are asked for, not demanded."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.ca_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    load_pair(context, authority.serving)
    return context


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Give `context` a certificate to show. The library reads files only, so there is one briefly."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pair.pem"
        path.touch(mode=0o600)
        path.write_text(pair.key_pem + pair.certificate_pem)
        context.load_cert_chain(path)


def kubeconfig(authority: Authority, *, name: str, server: str, pair: Pair | None = None) -> str:
    """Write a kubeconfig whose one context `name` reaches `server`, as administrator by default."""
    shown = pair or authority.admin
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": server,
                        "certificate-authority-data": _base64(authority.ca_pem),
                    },
                }
            ],
            "users": [
                {
                    "name": f"{name}-admin",
                    "user": {
                        "client-certificate-data": _base64(shown.certificate_pem),
                        "client-key-data": _base64(shown.key_pem),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-admin"}}],
        },
        sort_keys=False,
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _name(common: str, organizations: Iterable[str] = ()) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: clock.Instant
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _root(cluster: str, now: clock.Instant) -> Pair:
    key = _new_key()
    subject = _name(f"kubernetes-ca-{cluster}")
    certificate = (
        _begin(subject, subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(certificate), _key_pem(key))


def _serving(root: Pair, addresses: Sequence[str], now: clock.Instant) -> Pair:
    names = [*(x509.DNSName(each) for each in _SERVICE_NAMES), *map(_general_name, addresses)]
    unique = list(dict.fromkeys(names))
    return _leaf(
        root,
        _name("kube-apiserver"),
        now,
        (
            (x509.SubjectAlternativeName(unique), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ),
    )


def _client(root: Pair, name: str, organizations: Sequence[str], now: clock.Instant) -> Pair:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return _leaf(root, _name(name, organizations), now, ((usage, False),))


def _leaf(
    root: Pair,
    subject: x509.Name,
    now: clock.Instant,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Pair:
    signer = serialization.load_pem_private_key(root.key_pem.encode(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not on an elliptic curve")
    issuer = x509.load_pem_x509_certificate(root.certificate_pem.encode())
    key = _new_key()
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _begin(subject, issuer.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(authority_key, critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Pair(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
