"""Which ports a workload serves for services, found by its address."""

from isthmus.testing import builders


def served(mesh, cluster, address="10.0.0.1"):
    found = mesh.views.facts.served_at(mesh.graph, cluster, address)
    return {(key.service.name, one.service_port) for key, one in found.items()}


def test_clusters_may_have_pods_of_one_address():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    east.service("a", ready=["10.0.0.1"], ports={"http": 80})
    west.service("b", ready=["10.0.0.1"], ports={"tcp": 9000, "http": 80})

    assert served(mesh, "east") == {("a", 80)}
    assert served(mesh, "west") == {("b", 80), ("b", 9000)}


def test_who_moves_to_another_address_serves_there_and_no_longer_here():
    mesh = builders.Mesh()
    east = mesh.cluster("east")
    east.service("a", ready=["10.0.0.1", "10.0.0.2"], ports={"http": 80})
    east.endpoints("a", ready=["10.0.0.2", "10.0.0.3"], ports={"http": 80})

    found = [served(mesh, "east", f"10.0.0.{number}") for number in (1, 2, 3)]
    assert found == [set(), {("a", 80)}, {("a", 80)}]
