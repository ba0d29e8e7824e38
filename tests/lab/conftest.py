"""The mesh that stories about traffic share: booted once as root and once as an ordinary user."""

import os
import shutil

import meshes
import pytest
from tools import guides

from isthmus.cli import walkthrough

PEOPLE = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]

NAMES = "export CTX_CLUSTER1=cluster1 CTX_CLUSTER2=cluster2"
SWAPS = {
    "istioctl ca root": f"{NAMES}\nistioctl ca root",
    "cat <<EOF > cluster1.yaml": f"cat <<EOF > cluster1.yaml\n{walkthrough.CLUSTER1}EOF",
    "cat <<EOF > cluster2.yaml": walkthrough.CLUSTER2,
}
"""Names that the guide's reader sets, and what it writes into files."""

SAMPLES = "\n".join(step.command for step in walkthrough.WORKLOADS)


@pytest.fixture(scope="session", params=PEOPLE)
def mesh(request):
    """Two joined clusters with the samples: by the demo, or by the guide's own lines.

    Root and an ordinary user take different ways to the same mesh, so that both are tested.
    """
    lab = meshes.MeshLab(as_ordinary_user=request.param == "ordinary")
    try:
        if request.param == "root" or not shutil.which("kubectl"):
            lab.boot()
        else:
            rows = guides.sections()["Primary-remote on different networks"]
            lab.boot_by_guide("primary-remote", rows, swaps=SWAPS, after=SAMPLES)
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="session")
def ambient():
    """Three linked clusters on three networks with the samples in ambient mode, by the demo.

    An ordinary user has it: what works without root works with it.
    """
    lab = meshes.MeshLab(as_ordinary_user=True)
    lab.name = "ambient"
    try:
        lab.boot("ambient")
        yield lab
    finally:
        lab.close()


SHARED = ("mesh", "ambient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Take a shared lab down when this worker needs it no more, not at the end of all tests.

    Side by side, all tests of a lab come one after the other (`tests/conftest.py`).
    """
    done = yield
    if "PYTEST_XDIST_WORKER" in os.environ:
        for name in SHARED:
            lab = item.funcargs.get(name)
            if lab and _which(item, name) != _which(nextitem, name):
                lab.close()
    return done


def _which(item, name):
    """Return which of the labs that a fixture gives a test has; none has none."""
    if item is None or name not in item.fixturenames:
        return None
    return item.callspec.params.get(name, name) if hasattr(item, "callspec") else name
