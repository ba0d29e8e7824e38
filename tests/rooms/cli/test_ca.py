import base64
import stat

import pytest
from click.testing import CliRunner
from cryptography import x509

from isthmus.ca import authority, refusals
from isthmus.cli import ca
from isthmus.kube import kinds, problems


def run(*argv: str):
    return CliRunner().invoke(ca.command, argv)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_root_and_intermediate_make_the_four_files(folder):
    assert run("root").exit_code == 0
    assert run("intermediate", "cluster1").exit_code == 0

    assert {each.name for each in (folder / "cluster1").iterdir()} == set(authority.FILES)
    assert (folder / "cluster1" / "root-cert.pem").read_text() == (
        folder / "root-cert.pem"
    ).read_text()
    chain = x509.load_pem_x509_certificates((folder / "cluster1" / "cert-chain.pem").read_bytes())
    assert len(chain) == 2


def test_only_the_owner_may_read_keys(folder):
    run("root")
    run("intermediate", "cluster1")

    for path in (folder / "root-key.pem", folder / "cluster1" / "ca-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_are_not_replaced_unless_forced(folder):
    run("root")
    before = (folder / "root-key.pem").read_text()

    outcome = run("root")

    assert isinstance(outcome.exception, ca.WouldOverwrite)
    assert (folder / "root-key.pem").read_text() == before
    assert run("root", "--force").exit_code == 0
    assert (folder / "root-key.pem").read_text() != before


def test_an_intermediate_needs_a_root(folder):
    outcome = run("intermediate", "cluster1")

    assert isinstance(outcome.exception, ca.FilesMissing)
    assert outcome.exception.detail == "missing: root-key.pem, root-cert.pem"


def test_a_root_key_of_another_root_is_noticed_before_files_are_written(folder):
    run("root")
    run("root", "--out", "other")
    (folder / "root-key.pem").write_text((folder / "other" / "root-key.pem").read_text())

    outcome = run("intermediate", "cluster1")

    assert isinstance(outcome.exception, refusals.ChainBroken)
    assert not (folder / "cluster1").exists()


@pytest.mark.parametrize("name", ["../cluster1", "a/b", ".hidden", "x" * 64])
def test_names_that_lead_elsewhere_are_refused(folder, name):
    run("root")

    assert run("intermediate", name).exit_code == 2


def test_keys_can_be_rsa(folder):
    run("root", "--rsa")

    made = x509.load_pem_x509_certificate((folder / "root-cert.pem").read_bytes())
    assert made.public_key().key_size == 4096


def test_show_names_the_signer_and_the_root(folder):
    run("root")
    run("intermediate", "cluster1")

    lines = run("show", "cluster1").stdout.splitlines()

    assert lines[1].startswith("signs   L=cluster1,CN=Intermediate CA,O=Istio")
    assert lines[2].startswith("root    CN=Root CA,O=Istio")


def test_show_warns_of_an_authority_that_ends_soon(folder):
    run("root")
    run("intermediate", "cluster1", "--days", "7")

    assert "ends in 6 days" in run("show", "cluster1").stderr


class Server:
    """Objects of one cluster, in memory."""

    def __init__(self):
        self.objects = {}
        self.writes = 0

    async def find(self, kind, name, *, namespace=""):
        return self.objects.get((kind.kind, namespace, name))

    async def create(self, kind, obj):
        key = (kind.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if key in self.objects:
            raise problems.ApiError(409, "AlreadyExists", "exists")
        self.writes += 1
        self.objects[key] = {**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}}

    async def update(self, kind, obj):
        key = (kind.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if obj["metadata"]["resourceVersion"] != self.objects[key]["metadata"]["resourceVersion"]:
            raise problems.ApiError(409, "Conflict", "changed")
        self.writes += 1
        self.objects[key] = obj


FILES = {"ca-cert.pem": "one", "ca-key.pem": "two"}


async def test_push_makes_namespace_and_secret():
    server = Server()

    outcome = await ca.install(server, FILES, namespace="istio-system")

    assert outcome == ca.CREATED
    assert ("Namespace", "", "istio-system") in server.objects
    secret = server.objects["Secret", "istio-system", "cacerts"]
    assert base64.b64decode(secret["data"]["ca-cert.pem"]) == b"one"
    assert secret["type"] == "Opaque"


async def test_pushing_the_same_again_writes_nothing():
    server = Server()
    await ca.install(server, FILES, namespace="istio-system")
    writes = server.writes

    assert await ca.install(server, FILES, namespace="istio-system") == ca.UNCHANGED
    assert server.writes == writes


async def test_pushing_something_else_replaces_it():
    server = Server()
    await ca.install(server, FILES, namespace="istio-system")

    outcome = await ca.install(server, {"ca-cert.pem": "new"}, namespace="istio-system")

    assert outcome == ca.REPLACED
    assert list(server.objects["Secret", "istio-system", "cacerts"]["data"]) == ["ca-cert.pem"]


async def test_a_namespace_that_somebody_made_meanwhile_is_fine():
    class Late(Server):
        async def find(self, kind, name, *, namespace=""):
            if kind is kinds.NAMESPACE:
                return None
            return await super().find(kind, name, namespace=namespace)

    server = Late()
    await server.create(kinds.NAMESPACE, {"metadata": {"name": "istio-system"}})

    assert await ca.install(server, FILES, namespace="istio-system") == ca.CREATED


def test_an_intermediate_is_limited_to_the_trust_domain(folder):
    run("root")
    run("intermediate", "cluster1")
    run("intermediate", "cluster2", "--trust-domain", "a.example", "--trust-domain", "b.example")
    run("intermediate", "cluster3", "--any-trust-domain")

    said = [run("show", f"cluster{number}").stderr.splitlines()[0] for number in (1, 2, 3)]
    assert said == [
        "signs for trust domain: cluster.local",
        "signs for trust domain: a.example, b.example",
        "signs for trust domain: any",
    ]


@pytest.mark.parametrize("name", ["", "a..b", "spiffe://a", "A.example", "*"])
def test_a_trust_domain_must_be_a_name(folder, name):
    run("root")

    assert run("intermediate", "cluster1", "--trust-domain", name).exit_code == 2
    assert not (folder / "cluster1").exists()
