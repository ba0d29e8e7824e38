"""`isthmus install`: what its options mean, against an API server."""

import asyncio

import pytest
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.cli import main
from isthmus.lab.apiserver import pki


@pytest.fixture
async def config(tmp_path):
    async with lab_cluster.running_cluster() as cluster, lab_cluster.served(cluster):
        file = tmp_path / "config"
        file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))
        yield str(file)


@pytest.mark.parametrize("place", ["before", "after"])
async def test_the_control_planes_namespace_is_the_one_that_the_option_names(config, place):
    where = ["-i", "mesh-system"]
    words = [*where, "install"] if place == "before" else ["install", *where]
    words += ["--kubeconfig", config, "--dry-run"]
    ran = await asyncio.to_thread(CliRunner().invoke, main.command, words)

    assert ran.exit_code == 0
    assert "Deployment mesh-system/istiod" in ran.stderr
    assert "istio-system" not in ran.stderr
