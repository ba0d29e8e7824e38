"""Addresses that follow from a topology, and images that follow from a table."""

import json
import pathlib
import sys

import pytest
import yaml

from isthmus.cli import lab
from isthmus.lab import images, topology


def two(**second):
    first = {"name": "a", "network": "n1"}
    return {"clusters": [first, {"name": "b", "network": "n2", **second}]}


@pytest.mark.parametrize("name", topology.BUILT_IN)
def test_every_address_is_given_once(name):
    lab = topology.load(name)

    transit = [address for each in lab.clusters for address in (each.api_address, *each.balancers)]
    transit += [node.transit for each in lab.clusters for node in each.nodes]
    assert len(transit) == len(set(transit))
    near = [(each.network, each.control_address) for each in lab.clusters]
    near += [(each.network, node.address) for each in lab.clusters for node in each.nodes]
    assert len(near) == len(set(near))


def test_a_written_topology_reads_back_the_same():
    lab = topology.load("primary-remote")

    assert topology.parse(json.loads(topology.to_json(lab))) == lab


def test_clusters_of_one_network_know_each_others_nodes():
    lab = topology.load("shared-network")

    assert len(lab.on_network("network1")) == 2


def test_networks_may_overlap_but_neighbours_may_not():
    pods = "10.10.0.0/16"

    assert topology.parse(two(pods=pods)).clusters[1].pods == pods
    with pytest.raises(topology.TopologyError, match="share"):
        topology.parse(two(pods=pods, network="n1"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"clusters": []},
        {"clusters": [{"name": "UPPER"}]},
        {"clusters": [{"name": "a"}, {"name": "a"}]},
        {"clusters": [{"name": "a", "size": 3}]},
        {"clusters": [{"name": "a", "nodes": 99}]},
        {"clusters": [{"name": "a", "pods": "10.0.0.0/99"}]},
        {"clusters": [{"name": f"c{number}", "network": f"n{number}"} for number in range(65)]},
        {"clusters": [{"name": f"c{number}", "nodes": 8} for number in range(29)]},
        {"clusters": [{"name": "a"}], "speed": "fast"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(topology.TopologyError):
        topology.parse(wrong)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(topology.TopologyError) as caught:
        topology.load("nowhere")

    assert "primary-remote" in caught.value.hint


def test_a_file_that_is_no_yaml_is_named_with_the_place(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("clusters: [")
    with pytest.raises(topology.TopologyError, match="is not YAML") as caught:
        topology.load(str(path))

    assert f'in "{path}", line 1' in caught.value.detail
    assert "line that is named" in caught.value.hint


def test_every_built_in_topology_stands_in_the_help():
    text = " ".join((lab.up.help or "").split())

    assert [name for name in topology.BUILT_IN if name not in text] == []


def test_a_command_replaces_what_the_image_would_run():
    image = images.find("docker.io/istio/examples-helloworld-v2:1.0")

    assert image.argv(command=(), args=())[1:] == ("-m", "isthmus.lab.samples.helloworld")
    assert image.argv(command=("sleep",), args=("1",)) == ("sleep", "1")
    assert image.env == {"SERVICE_VERSION": "v2"}


def test_an_image_whose_program_is_python_runs_with_this_python():
    image = images.find("istio/proxyv2:1.29.0")

    assert image.argv(command=(), args=("proxy", "sidecar")) == (
        sys.executable,
        *("-m", "isthmus.node", "proxy", "sidecar"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "curlimages/curl",
        "docker.io/curlimages/curl:8.1",
        "busybox",
        "gcr.io/istio-release/proxyv2:1",
        "isthmus/pilot:dev",
    ],
)
def test_usual_spellings_of_images_are_known(name):
    assert images.find(name)


def test_an_unknown_image_is_refused_with_those_that_are_known():
    with pytest.raises(images.UnknownImageError) as caught:
        images.find("nginx:1")

    assert "curlimages/curl" in caught.value.hint


GUIDE = pathlib.Path(__file__).parents[4] / "docs" / "howto" / "lab-topologies.md"


def test_the_guides_example_is_what_the_guide_says():
    example = GUIDE.read_text().split("```yaml\n")[1].split("```")[0]

    lab = topology.parse(yaml.safe_load(example))

    assert [each.name for each in lab.on_network("inland")] == ["west", "middle"]
    west, _, island = lab.clusters
    assert [node.zone for node in west.nodes] == ["west-zone1", "west-zone2", "west-zone3"]
    assert (island.pods, island.services) == (west.pods, west.services)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodes", True),
        ("nodes", 9),
        ("pods", "172.30.0.0/16"),
        ("pods", "192.168.0.0/16"),
        ("pods", "10.110.0.0/16"),
        ("services", "127.0.0.0/16"),
        ("services", "172.30.0.0/24"),
        ("netwrok", "n1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(field, value):
    with pytest.raises(topology.TopologyError) as caught:
        topology.parse({"clusters": [{"name": "a", field: value}]})

    assert caught.value.hint or str(value) in caught.value.happened
