import pytest
from lab_objects import config, definition, deployment, gadget, owner, pod

from isthmus.lab.apiserver import deletion
from isthmus.lab.apiserver.api import ApiError

CRDS = "customresourcedefinitions.apiextensions.k8s.io"


async def names(api, resource):
    return [one["metadata"]["name"] for one in await api.list(resource)]


async def remove(api, resource, name, **how):
    found = api.state.catalog.named(resource)
    return await deletion.delete(
        api.state, found, name=name, namespace="default", how=deletion.How(**how)
    )


async def running(api, name="sleep", **meta):
    await api.create("pods", pod(name, **meta))
    binding = {"metadata": {"name": name, "namespace": "default"}, "target": {"name": "n1"}}
    await api.create("pods", binding, subresource="binding")


async def test_a_running_pod_is_marked_and_goes_when_its_kubelet_says_so(api):
    await running(api)
    await api.delete("pods", "sleep", "default", grace_s=5)

    meta = (await api.get("pods", "sleep", "default"))["metadata"]
    assert (meta["deletionGracePeriodSeconds"], "deletionTimestamp" in meta) == (5, True)

    await api.delete("pods", "sleep", "default", grace_s=0)
    assert await names(api, "pods") == []


async def test_grace_can_be_shortened_but_not_lengthened(api):
    await running(api)
    for asked, kept in ((20, 20), (5, 5), (60, 5)):
        await api.delete("pods", "sleep", "default", grace_s=asked)
        meta = (await api.get("pods", "sleep", "default"))["metadata"]
        assert meta["deletionGracePeriodSeconds"] == kept


async def test_a_pod_that_runs_nowhere_goes_at_once(api):
    await api.create("pods", pod())
    await api.delete("pods", "sleep", "default")
    assert await names(api, "pods") == []


async def test_a_finalizer_holds_an_object_until_it_is_removed(api):
    await api.create("configmaps", config(finalizers=["demo.io/hold"]))
    await api.delete("configmaps", "settings", "default")
    assert await names(api, "configmaps") == ["settings"]

    await api.patch(
        "configmaps", "settings", {"metadata": {"finalizers": None}}, namespace="default"
    )
    assert await names(api, "configmaps") == []


async def test_an_object_being_deleted_gains_no_finalizers(api):
    await api.create("configmaps", config(finalizers=["demo.io/hold"]))
    await api.delete("configmaps", "settings", "default")
    more = {"metadata": {"finalizers": ["demo.io/hold", "demo.io/more"]}, "data": {"a": "b"}}
    made = await api.patch("configmaps", "settings", more, namespace="default")
    assert made["metadata"]["finalizers"] == ["demo.io/hold"]


async def test_what_a_deleted_owner_owned_goes_with_it_at_every_depth(api):
    top = await api.create("deployments.apps", deployment())
    middle = {**deployment("rs"), "metadata": {"name": "rs", "namespace": "default"}}
    middle["metadata"]["ownerReferences"] = [owner(top)]
    middle = await api.create("replicasets.apps", middle)
    await api.create("pods", pod(ownerReferences=[owner(middle)]))

    await api.delete("deployments.apps", "hello", "default")

    assert await names(api, "replicasets.apps") == await names(api, "pods") == []


async def test_an_object_with_another_owner_left_stays(api):
    one = await api.create("configmaps", config("one"))
    two = await api.create("configmaps", config("two"))
    await api.create("configmaps", config("owned", ownerReferences=[owner(one), owner(two)]))
    await api.delete("configmaps", "one", "default")
    assert await names(api, "configmaps") == ["owned", "two"]


async def test_orphans_are_left_without_owner(api):
    one = await api.create("configmaps", config("one"))
    await api.create("configmaps", config("owned", ownerReferences=[owner(one)]))

    await remove(api, "configmaps", "one", propagation=deletion.ORPHAN)

    assert await names(api, "configmaps") == ["owned"]
    left = await api.get("configmaps", "owned", "default")
    assert "ownerReferences" not in left["metadata"]


async def test_in_the_foreground_an_owner_waits_for_its_dependents(api):
    top = await api.create("deployments.apps", deployment())
    await running(api, ownerReferences=[owner(top, blocks=True)])

    _, gone = await remove(api, "deployments.apps", "hello", propagation=deletion.FOREGROUND)
    assert (gone, await names(api, "deployments.apps")) == (False, ["hello"])

    # The pod went into the foreground as well, so it has nothing to wait for but its kubelet.
    await api.delete("pods", "sleep", "default", grace_s=0)
    assert await names(api, "deployments.apps") == []


async def test_an_object_whose_owner_is_gone_already_does_not_stay(api):
    one = await api.create("configmaps", config("one"))
    await api.delete("configmaps", "one", "default")
    await api.create("configmaps", config("late", ownerReferences=[owner(one)]))
    assert await names(api, "configmaps") == []


async def test_a_namespace_goes_after_everything_in_it(api):
    await api.create("namespaces", {"metadata": {"name": "team"}})
    await api.create("configmaps", config(namespace="team", finalizers=["demo.io/hold"]))
    await api.delete("namespaces", "team")

    assert (await api.get("namespaces", "team"))["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError, match="being terminated"):
        await api.create("configmaps", config("new", namespace="team"))

    await api.patch("configmaps", "settings", {"metadata": {"finalizers": []}}, namespace="team")
    assert "team" not in await names(api, "namespaces")


async def test_the_default_namespace_stays(api):
    with pytest.raises(ApiError, match="may not be deleted"):
        await api.delete("namespaces", "default")


async def test_a_definition_takes_its_objects_with_it(api):
    await api.create(CRDS, definition({}))
    await api.create("gadgets.demo.io", gadget())
    await api.delete(CRDS, "gadgets.demo.io")

    with pytest.raises(ApiError, match="could not find the requested resource"):
        await api.list("gadgets.demo.io")
    await api.create(CRDS, definition({}))
    assert await api.list("gadgets.demo.io") == []


async def test_a_definition_waits_for_the_finalizers_of_its_objects(api):
    await api.create(CRDS, definition({}))
    held = gadget()
    held["metadata"]["finalizers"] = ["demo.io/hold"]
    await api.create("gadgets.demo.io", held)
    await api.delete(CRDS, "gadgets.demo.io")
    assert await names(api, CRDS) == ["gadgets.demo.io"]

    await api.patch(
        "gadgets.demo.io", "one", {"metadata": {"finalizers": None}}, namespace="default"
    )
    assert await names(api, CRDS) == []


async def test_only_the_object_that_was_meant_is_deleted(api):
    await api.create("configmaps", config())
    with pytest.raises(ApiError, match="Precondition failed") as caught:
        await remove(api, "configmaps", "settings", uid="another")
    assert caught.value.code == 409


async def test_an_eviction_deletes_the_pod(api):
    await api.create("pods", pod())
    eviction = {"metadata": {"name": "sleep", "namespace": "default"}}
    await api.create("pods", eviction, subresource="eviction")
    assert await names(api, "pods") == []
