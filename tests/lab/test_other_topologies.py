"""Other ways to join clusters, each by its walkthrough's own commands."""

import meshes
import pytest

pytestmark = pytest.mark.lab


def joined(topology):
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot(topology)
        return lab.json("isthmus verify --requests 100 -o json"), lab.json(
            "isthmus --context cluster2 remote-clusters -o json"
        )
    finally:
        lab.close()


@pytest.mark.parametrize(
    ("topology", "is_direct"), [("multi-primary", True), ("multi-primary-multi-network", False)]
)
def test_two_control_planes_see_both_clusters(topology, is_direct):
    report, clusters = joined(topology)

    assert report["is_well"], report["findings"]
    assert {(row["source"], row["cluster"]) for row in report["rows"]} == {
        ("cluster1", "cluster1"), ("cluster1", "cluster2"),
        ("cluster2", "cluster1"), ("cluster2", "cluster2"),
    }  # fmt: skip
    assert all(0.3 <= row["share"] <= 0.7 for row in report["rows"])
    across = [row["path"] for row in report["rows"] if row["source"] != row["cluster"]]
    assert all((path == "direct") == is_direct for path in across), across
    assert {one["id"] for one in clusters} == {"cluster1", "cluster2"}
