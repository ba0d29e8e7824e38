"""Kubeconfigs, as commands write them and with changes."""

import base64

import pytest
import yaml

from isthmus.ca import keys, pem
from isthmus.kube import access, problems
from isthmus.testing import certificates

CA = pem.written(certificates.root_certificate())
KEY = keys.private_pem(certificates.key("root"))


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
