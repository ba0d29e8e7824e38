"""Where a mesh is configured, as a control plane finds it at its start."""

import base64
import pathlib

import pytest

from isthmus.ca import pem
from isthmus.runtime import seating, settings
from isthmus.testing import certificates


def kubeconfig(server="https://172.30.0.33:6443", user="token: abc"):
    root = base64.b64encode(pem.written(certificates.root_certificate()).encode()).decode()
    parts = {
        "contexts": "context: {cluster: c, user: c}",
        "clusters": f"cluster: {{server: '{server}', certificate-authority-data: {root}}}",
        "users": f"user: {{{user}}}",
    }
    return "\n".join(f"{section}: [{{name: c, {one}}}]" for section, one in parts.items())


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Stand in a pod; return the place of the kubeconfig."""
    for name, text in {"token": "t", "ca.crt": "", "namespace": "external-istiod"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    return tmp_path / "config"


def chosen(path, **fields):
    return settings.Settings("cluster1", kubeconfig=str(path), **fields)


def found(options):
    return seating.seats(options, mounted=str(pathlib.Path(options.kubeconfig).parent))


def test_without_a_kubeconfig_the_mesh_is_configured_where_the_control_plane_runs(pod):
    seats = found(chosen(pod))

    assert (seats.config.server, seats.home) == ("https://10.0.0.1:443", None)


def test_with_one_it_is_configured_there_and_the_control_plane_keeps_its_home(pod):
    pod.write_text(kubeconfig())

    seats = found(chosen(pod, has_secrets_at_home=True))

    assert seats.config.server == "https://172.30.0.33:6443"
    assert (seats.home.reached_by.server, seats.home.has_secrets) == ("https://10.0.0.1:443", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "is missing or empty"),
        ("", "is missing or empty"),
        ("{", "cannot be loaded"),
        (kubeconfig(server="https://127.0.0.1:6443"), "loopback"),
        (kubeconfig(user="exec: {command: evil}"), "exec is not allowed"),
    ],
)
def test_outside_of_its_mesh_it_never_takes_its_own_cluster_for_the_mesh(pod, text, why):
    if text is not None:
        pod.write_text(text)

    with pytest.raises(seating.ConfigClusterUnknown) as caught:
        found(chosen(pod, has_secrets_at_home=True, namespace="external-istiod"))

    assert "Secret `istio-kubeconfig` in namespace `external-istiod`" in caught.value.happened
    assert why in caught.value.happened
    assert "--type=config --namespace=external-istiod" in caught.value.hint


async def test_another_kubeconfig_ends_the_program_and_a_missing_one_does_not(pod):
    pod.write_text(kubeconfig())
    options = chosen(pod, has_secrets_at_home=True)
    seats = found(options)
    steps = [pod.unlink, lambda: pod.write_text(kubeconfig(user="token: other"))]
    seen = []

    async def sleep(delay_s):
        seen.append(delay_s)
        steps.pop(0)()

    await seating.changed(options, seats, sleep=sleep)

    assert len(seen) == 2
