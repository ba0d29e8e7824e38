"""`isthmus install`: what its options mean, against an API server."""

import asyncio

import pytest
import yaml
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.cli import main
from isthmus.lab.apiserver import pki


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        yield found


@pytest.fixture
def config(cluster, tmp_path):
    file = tmp_path / "config"
    file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))
    return str(file)


@pytest.mark.parametrize("place", ["before", "after"])
async def test_the_control_planes_namespace_is_the_one_that_the_option_names(config, place):
    where = ["-i", "mesh-system"]
    words = [*where, "install"] if place == "before" else ["install", *where]
    words += ["--kubeconfig", config, "--dry-run"]
    ran = await asyncio.to_thread(CliRunner().invoke, main.command, words)

    assert ran.exit_code == 0
    assert "Deployment mesh-system/istiod" in ran.stderr
    assert "istio-system" not in ran.stderr


NAMED = "values.global.multiCluster.clusterName"


async def test_a_forgotten_name_of_the_cluster_is_noticed_before_anything_changes(cluster, config):
    first = settings_of("--set", f"{NAMED}=cluster1")
    await cluster.namespace("istio-system")
    await cluster.api.create("deployments.apps", first)

    forgot = await asyncio.to_thread(installed, config)
    again = await asyncio.to_thread(installed, config, "--set", f"{NAMED}=cluster1")

    assert "warning[ISM-INST-011]: cluster `cluster1`: gets another name" in forgot.stderr
    assert "ISM-INST-011" not in again.stderr
    assert (forgot.exit_code, again.exit_code) == (0, 0)


def installed(config, *words):
    words = ["install", "--kubeconfig", config, "--dry-run", *words]
    return CliRunner().invoke(main.command, words)


def settings_of(*words):
    """Return the control plane's Deployment as `manifest generate` prints it."""
    printed = CliRunner().invoke(main.command, ["manifest", "generate", *words]).stdout
    [found] = [one for one in yaml.safe_load_all(printed) if one and one["kind"] == "Deployment"
               and one["metadata"]["name"] == "istiod"]  # fmt: skip
    return found
