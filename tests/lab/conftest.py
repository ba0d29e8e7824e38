"""The mesh that stories about traffic share: booted once as root and once as an ordinary user."""

import os

import meshes
import pytest

PEOPLE = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


@pytest.fixture(scope="session", params=PEOPLE)
def mesh(request):
    """Two joined clusters with the samples, as the demo leaves them."""
    lab = meshes.MeshLab(as_ordinary_user=request.param == "ordinary")
    try:
        lab.boot()
        yield lab
    finally:
        lab.close()
