"""What the injector works with follows from two ConfigMaps, and never from half of one."""

import json
from types import SimpleNamespace

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, injection, settings

C1 = ClusterId("c1")
VALUES = {"global": {"network": "n1", "multiCluster": {"clusterName": "c1"}}}


def setting(revision="default"):
    mesh = assembly.assemble(
        config_cluster=C1, revision=revision, system_namespace="mesh", domain="cluster.local"
    )
    chosen = settings.Settings(C1, revision=revision, namespace="mesh")
    return SimpleNamespace(mesh=mesh, declared=injection.declare(mesh, chosen))


def write(made, name, **texts):
    metadata = objects.Metadata(name=name, namespace="mesh")
    with made.mesh.graph.transaction() as transaction:
        key = ObjectKey(C1, "mesh", name)
        transaction.put(made.mesh.sources.config_maps, key, objects.ConfigMap(metadata, texts))


def found(made):
    return made.declared.settings()


def findings(made):
    return [one.code for one in made.mesh.graph.value(made.declared.findings)]


def test_without_its_config_map_the_injector_has_no_settings_and_guesses_none():
    made = setting()

    assert found(made) is None
    assert findings(made) == ["ISM-RUN-005"]


def test_settings_are_those_of_the_config_map_and_of_the_mesh():
    made = setting()

    write(made, "istio-sidecar-injector", values=json.dumps(VALUES), config="policy: disabled")
    write(made, "istio", mesh="defaultConfig: {discoveryAddress: 'a:1'}")

    assert (found(made).cluster, found(made).network) == ("c1", "n1")
    assert not found(made).policy_enabled
    assert found(made).discovery_address == "a:1"
    assert findings(made) == []


def test_broken_settings_keep_the_last_good_ones_and_are_reported():
    made = setting()
    write(made, "istio-sidecar-injector", values=json.dumps(VALUES))
    before = found(made)

    for broken in ({"values": "{"}, {"values": "{}", "config": "a: [b"}):
        write(made, "istio-sidecar-injector", **broken)
        assert found(made) == before
        assert findings(made) == ["ISM-RUN-005"]


def test_settings_that_were_broken_from_the_start_are_none():
    made = setting()

    write(made, "istio-sidecar-injector", values="[")

    assert found(made) is None


def test_a_revision_has_config_maps_of_its_own():
    made = setting(revision="canary")
    write(made, "istio-sidecar-injector", values=json.dumps(VALUES))
    assert found(made) is None

    values = VALUES | {"revision": "canary"}
    write(made, "istio-sidecar-injector-canary", values=json.dumps(values))

    assert found(made).own_address == "istiod-canary.istio-system.svc:15012"
