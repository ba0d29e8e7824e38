"""What beginners are told, typed as it stands: the tutorial, and a lab of one's own."""

import os
import re
import shutil

import meshes
import pytest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not shutil.which("kubectl"), reason="the tutorial types kubectl"),
]

PAGE = meshes.ROOT / "docs/tutorial/first-mesh.md"
TO_BE_SEEN = "all 200 requests were answered, over mutual TLS"


@pytest.fixture
def beginner():
    """Somebody without rights, in an empty folder that has the samples."""
    lab = meshes.MeshLab(as_ordinary_user=True)
    lab.name = "lab"
    folder = lab.folder / "home/work"
    folder.mkdir()
    (folder / "samples").symlink_to(meshes.ROOT / "samples")
    if lab.user is not None:
        os.chown(folder, lab.user, lab.user)
    yield lab
    _ = lab.attempt(f"isthmus lab down --name {lab.name}")
    shutil.rmtree(lab.folder)


def test_the_tutorial_leads_to_a_mesh(beginner):
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks[-1] == "isthmus lab down\n"
    typed = "".join(blocks)
    ended = beginner.attempt(f"set -e\ncd work\n{typed}", timeout=180)

    assert (ended.returncode, TO_BE_SEEN in ended.stderr) == (0, True), ended.stderr[-2000:]
    assert "no lab is running" in beginner.attempt("isthmus lab status").stderr


OWN = meshes.ROOT / "docs/howto/lab-topologies.md"


def test_a_lab_of_ones_own_is_what_its_page_describes(beginner):
    [description] = re.findall(r"^```yaml\n(.*?)^```$", OWN.read_text(), re.DOTALL | re.MULTILINE)
    builtin, own = re.findall(r"^\$ (.*)$", OWN.read_text(), re.MULTILINE)
    beginner.run(f"{builtin} && isthmus lab down")
    beginner.run(f"cat >shores.yaml && {own}", stdin=description)
    beginner.name = "shores"
    nodes = "isthmus kubectl --kubeconfig $(isthmus lab kubeconfig --name shores) --context"

    found = {
        cluster: len(beginner.run(f"{nodes} {cluster} get nodes").splitlines()) - 1
        for cluster in ("west", "middle", "island")
    }
    beginner.run("isthmus lab down --name shores")
    assert found == {"west": 3, "middle": 1, "island": 1}
