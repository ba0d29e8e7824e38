"""Server-side apply, as managers of fields meet it."""

import datetime

import pytest
from lab_objects import config, deployment, service

from isthmus.base import clock
from isthmus.lab.apiserver import applying
from isthmus.lab.apiserver.api import ApiError, Options


async def apply(api, resource, wanted, *, by="ann", force=False):
    found = api.state.catalog.named(resource)
    options = Options(manager=by, force=force)
    made, _ = await applying.apply(
        api.state,
        found,
        {"apiVersion": found.api_version, "kind": found.kind, **wanted},
        name=wanted["metadata"]["name"],
        namespace="default",
        options=options,
    )
    return made


async def applied_data(api, data, **how):
    return (await apply(api, "configmaps", config(data=data), **how)).get("data", {})


async def test_what_a_manager_no_longer_applies_goes_away(api):
    await applied_data(api, {"a": "1", "b": "2"})
    assert await applied_data(api, {"b": "2"}) == {"b": "2"}


async def test_what_others_own_as_well_stays(api):
    await applied_data(api, {"a": "1"})
    await applied_data(api, {"a": "1", "b": "2"}, by="bob")
    assert await applied_data(api, {}) == {"a": "1", "b": "2"}


async def test_changing_what_another_owns_conflicts_and_says_with_whom(api):
    await applied_data(api, {"a": "1"})

    with pytest.raises(ApiError, match=r'conflict with "ann": \.data\.a') as caught:
        await applied_data(api, {"a": "2"}, by="bob")

    assert caught.value.code == 409
    assert caught.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "ann"', "field": ".data.a"}
    ]


async def test_force_takes_the_field(api):
    await applied_data(api, {"a": "1"})
    assert await applied_data(api, {"a": "2"}, by="bob", force=True) == {"a": "2"}
    with pytest.raises(ApiError, match='conflict with "bob"'):
        await applied_data(api, {"a": "1"})


async def test_an_update_takes_what_it_changes(api):
    await applied_data(api, {"a": "1"})
    await api.patch("configmaps", "settings", {"data": {"a": "9"}}, namespace="default")
    with pytest.raises(ApiError, match='conflict with "system:apiserver"'):
        await applied_data(api, {"a": "1"})


async def test_applying_the_same_again_writes_nothing(api):
    first = await apply(api, "deployments.apps", deployment())
    again = await apply(api, "deployments.apps", deployment())
    assert again == first
    assert api.revision == first["metadata"]["resourceVersion"]


class Later(clock.SystemClock):
    """A clock that is an hour ahead."""

    def now(self):
        return super().now() + datetime.timedelta(hours=1)


async def test_applying_the_same_again_later_writes_nothing_either(api):
    first = await apply(api, "deployments.apps", deployment())
    api.state.clock = Later()

    assert await apply(api, "deployments.apps", deployment()) == first
    changed = await apply(api, "deployments.apps", deployment(), by="bob", force=True)

    times = {one["manager"]: one["time"] for one in changed["metadata"]["managedFields"]}
    assert times["ann"] < times["bob"]


async def test_what_is_applied_empty_is_not_changed_by_what_others_put_in(api):
    def named(**annotations):
        found = deployment()
        return {**found, "metadata": {**found["metadata"], "annotations": annotations}}

    await apply(api, "deployments.apps", named())
    filled = await apply(api, "deployments.apps", named(a="1"), by="bob", force=True)
    api.state.clock = Later()

    assert await apply(api, "deployments.apps", named()) == filled
    emptied = await apply(api, "deployments.apps", deployment(), by="bob")
    assert not emptied["metadata"].get("annotations")


async def test_items_of_a_keyed_list_have_owners_of_their_own(api):
    def wanted(*names):
        spec = {"containers": [{"name": name, "image": "x"} for name in names]}
        return deployment(template={"metadata": {"labels": {"app": "hello"}}, "spec": spec})

    await apply(api, "deployments.apps", wanted("one", "two"))
    await apply(api, "deployments.apps", wanted("two", "three"), by="bob")
    made = await apply(api, "deployments.apps", wanted("one"))

    names = [one["name"] for one in made["spec"]["template"]["spec"]["containers"]]
    assert names == ["one", "two", "three"]


async def test_a_ports_protocol_is_part_of_its_key_even_when_left_out(api):
    await apply(api, "services", service(ports=[{"port": 53, "name": "a"}]))
    made = await apply(
        api, "services", service(ports=[{"port": 53, "protocol": "TCP", "name": "a"}])
    )
    assert len(made["spec"]["ports"]) == 1


async def test_status_is_not_applied_through_the_object(api):
    made = await apply(api, "deployments.apps", {**deployment(), "status": {"replicas": 3}})
    assert made["status"] == {}
    assert "f:status" not in made["metadata"]["managedFields"][0]["fieldsV1"]


async def test_a_scaled_deployment_conflicts_over_replicas_only(api):
    await apply(api, "deployments.apps", deployment(replicas=1))
    await api.patch(
        "deployments.apps",
        "hello",
        {"spec": {"replicas": 5}},
        namespace="default",
        subresource="scale",
    )
    with pytest.raises(ApiError, match=r"\.spec\.replicas") as caught:
        await apply(api, "deployments.apps", deployment(replicas=1))
    assert len(caught.value.details["causes"]) == 1

    made = await apply(api, "deployments.apps", deployment())
    assert made["spec"]["replicas"] == 5


async def test_managed_fields_cannot_be_applied(api):
    with pytest.raises(ApiError, match="managedFields must be nil"):
        await apply(api, "configmaps", config(managedFields=[{"manager": "x"}]))


async def test_kubectl_takes_over_what_it_applied_from_the_client(api):
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    last = '{"data":{"a":"1"}}'
    found = api.state.catalog.named("configmaps")
    from isthmus.lab.apiserver import writes

    await writes.create(
        api.state,
        found,
        config(data={"a": "1"}, annotations={annotation: last}),
        options=Options(manager="kubectl-client-side-apply"),
    )
    with pytest.raises(ApiError, match="kubectl-client-side-apply"):
        await applied_data(api, {"a": "2"}, by="bob")
    assert await applied_data(api, {"a": "2"}, by="kubectl") == {"a": "2"}
