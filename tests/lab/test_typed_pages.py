"""What the how-to pages tell readers to type is typed here, as it stands, in a mesh as they have it.

A page's commands run in its order, each block in a shell of its own. What a page leaves behind it
also takes back, or its test does.
"""

import re
import shutil

import meshes
import pytest
import traffic

from isthmus.testing import pace

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not shutil.which("kubectl"), reason="the pages type kubectl"),
    # One of the two meshes is enough: the pages do not depend on who typed the guide.
    pytest.mark.parametrize("mesh", ["ordinary"], indirect=True),
]

HOWTO = meshes.ROOT / "docs/howto"
ODD = ("isthmus explain POD HOST[:PORT]", "isthmus explain deploy/sleep.sample helloworld:5000")
BLOCK = re.compile(r"^( *)```(?:sh|console)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
OUTLIVES_S = pace.patience(20.0)


def blocks(page):
    """Return what a page says to type, block by block; of blocks with prompts, what is after them."""
    found = []
    for indent, text in BLOCK.findall((HOWTO / page).read_text()):
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        typed = [line[2:] for line in lines if line.startswith("$ ")]
        found.append("\n".join(typed or lines))
    return found


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, mesh, page):
        self._mesh = mesh
        self.left = blocks(page)

    def types(self, start, *, until=""):
        """Type the next block, which begins so; again, until it prints what is expected."""
        block = self.left.pop(0)
        assert block.startswith(start), block
        command = block.replace("--name demo", f"--name {self._mesh.name}")
        if not until:
            return self._mesh.run(f"set -e\ncd release\n{command}")
        return traffic.until(lambda: self._attempt(command, until), limit_s=OUTLIVES_S)

    def _attempt(self, command, expected):
        ended = self._mesh.attempt(f"set -e\ncd release\n{command}")
        said = ended.stdout + ended.stderr
        return said if expected in said and not ended.returncode else ""

    def is_through(self):
        """Hold that nothing of the page was left out."""
        assert self.left == []


def test_names_of_other_clusters_are_answered(mesh):
    page = Reader(mesh, "names.md")
    try:
        page.types("isthmus install")
        page.types("kubectl --context cluster2 apply", until="Hello version: v2")
        assert "istio_agent_dns_requests_total" in page.types("kubectl --context cluster1 exec")
        page.is_through()
    finally:
        mesh.kubectl("cluster2", "delete service -n sample far --ignore-not-found")
        mesh.run(
            "cd release && isthmus install --context cluster1 -y -f cluster1.yaml"
            " --set values.pilot.env.EXTERNAL_ISTIOD=true"
            " && kubectl --context cluster1 -n sample rollout restart deploy/sleep"
            " && kubectl --context cluster1 -n sample rollout status deploy/sleep"
        )


def test_near_endpoints_are_preferred_and_far_ones_stand_in(mesh):
    page = Reader(mesh, "failover.md")
    page.types("kubectl --context cluster1 apply")
    page.types("kubectl --context cluster1 annotate")
    page.types("isthmus proxy-config endpoint", until=" priority 1\n")
    said = page.types("kubectl --context cluster1 -n sample scale")
    page.types("kubectl --context cluster1 delete")
    page.is_through()

    assert said.count("Hello version: ") == 4
    traffic.until(lambda: not mesh.attempt(VERIFY).returncode)


VERIFY = "isthmus verify --contexts cluster1,cluster2"


def test_a_mesh_is_verified(mesh):
    page = Reader(mesh, "verify.md")
    page.types("isthmus verify", until='"is_well": true')
    page.types("isthmus findings", until="no findings")
    page.is_through()


def test_a_cluster_is_lost_taken_out_given_up_and_had_back(mesh):
    page = Reader(mesh, "lose-a-cluster.md")
    page.types("isthmus remote-clusters", until="cluster2")
    assert page.types("isthmus lab api-server stop").count("Hello version: ") == 4
    page.types("kubectl --context cluster1 annotate")
    page.types("kubectl --context cluster1 delete secret")
    page.types("isthmus create-remote-secret")
    page.is_through()

    synced(mesh)


def synced(mesh):
    """Wait until the other cluster is followed again, and answers."""

    def holds():
        clusters = mesh.json("isthmus remote-clusters --context cluster1 -o json")
        states = {one["id"]: (one["syncStatus"], one.get("error")) for one in clusters}
        return states.get("cluster2", ("",))[0] == "synced" and not states["cluster2"][1]

    traffic.until(holds)
    traffic.until(lambda: not mesh.attempt(VERIFY).returncode)


def test_credentials_are_rotated_and_revoked(mesh):
    page = Reader(mesh, "rotate-credentials.md")
    page.types("isthmus rotate-remote-secret")
    page.types("isthmus rotate-remote-secret")
    assert "istio-remote-token-cluster2-" in page.types("kubectl get secret")
    page.types("isthmus remote-clusters", until="tokenExpires")
    page.types("kubectl delete secret")
    page.is_through()

    mesh.run("isthmus create-remote-secret --context=cluster2 --name=cluster2 >walk.yaml")
    mesh.run("kubectl apply --context=cluster1 -f walk.yaml --server-side --force-conflicts")
    synced(mesh)


def test_a_gateway_serves_https(mesh):
    page = Reader(mesh, "https.md")
    for start in ("openssl req", "kubectl create", "kubectl apply", "kubectl apply"):
        page.types(start)
    said = page.types("ADDRESS=", until="kubernetes://shop")
    page.types("kubectl delete")
    page.is_through()

    assert "Hello version: v" in said


def test_what_the_first_page_lets_readers_try_succeeds(mesh):
    page = Reader(mesh, "../../README.md")
    _, around, _, odd, _ = page.left
    first, *_, last = around.splitlines()[2:]
    assert first.startswith("export KUBECONFIG=")
    assert last == "isthmus lab down --name demo"
    typed = [*around.splitlines()[3:-1], *odd.replace(*ODD).splitlines()]

    assert len(typed) == 8
    for line in typed:
        said = line.replace("POD", "deploy/sleep.sample")
        traffic.until(lambda line=said: not mesh.attempt(line).returncode)


def test_debug_pages_are_asked_with_a_token(mesh):
    page = Reader(mesh, "../reference/debug-endpoints.md")
    assert '"syncStatus": "synced"' in page.types("TOKEN=")
    page.is_through()
