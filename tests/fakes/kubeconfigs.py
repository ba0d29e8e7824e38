"""Kubeconfigs, as commands write them and with changes."""

import base64
import datetime

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.kube import access, problems


def _certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at)
        .not_valid_after(at + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


CA, KEY = _certificate()


def b64(text):
    return base64.b64encode(text.encode()).decode()


def document(cluster=None, user=None, **top):
    """Return a kubeconfig as `create-remote-secret` makes it, with changes."""
    authority = {"certificate-authority-data": b64(CA), "server": "https://10.2.0.9:6443"}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": authority | (cluster or {}), "name": "c2"}],
        "contexts": [{"context": {"cluster": "c2", "user": "c2"}, "name": "c2"}],
        "current-context": "c2",
        "users": [{"name": "c2", "user": {"token": "t"} if user is None else user}],
    }
    return whole | {key.replace("_", "-"): value for key, value in top.items()}


def text(*parts, **top):
    return yaml.safe_dump(document(*parts, **top))


def refusal(kubeconfig):
    with pytest.raises(problems.KubeconfigRefused) as caught:
        access.parse_untrusted(kubeconfig)
    return caught.value


def own(tmp_path, name="config", **changes):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document(**changes)))
    return path
