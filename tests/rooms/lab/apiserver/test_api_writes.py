import pytest
from lab_objects import config, deployment, pod, service

from isthmus.lab.apiserver.api import AdmissionRequest, ApiError, User


async def refusal(work):
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value.code, caught.value.reason


async def test_what_the_server_sets_cannot_be_chosen(api):
    made = await api.create("configmaps", config(uid="mine", resourceVersion="7", generation=9))
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["resourceVersion"] == api.revision
    assert "generation" not in made["metadata"]


async def test_a_generated_name_has_the_given_beginning(api):
    made = await api.create(
        "pods", {**pod(), "metadata": {"generateName": "p-", "namespace": "default"}}
    )
    assert made["metadata"]["name"].startswith("p-")
    assert len(made["metadata"]["name"]) == 7


async def test_a_taken_name_conflicts(api):
    await api.create("configmaps", config())
    assert await refusal(api.create("configmaps", config())) == (409, "AlreadyExists")


async def test_a_namespace_must_exist(api):
    assert await refusal(api.create("configmaps", config(namespace="nowhere"))) == (404, "NotFound")


async def test_a_stale_update_conflicts(api):
    old = await api.create("configmaps", config())
    await api.update("configmaps", {**old, "data": {"a": "1"}})
    assert await refusal(api.update("configmaps", {**old, "data": {"a": "2"}})) == (409, "Conflict")


async def test_an_update_that_changes_nothing_writes_nothing(api):
    made = await api.create("configmaps", config(data={"a": "1"}))
    assert await api.update("configmaps", made) == made
    assert api.revision == made["metadata"]["resourceVersion"]


async def test_generation_counts_changes_of_the_spec_only(api):
    await api.create("deployments.apps", deployment())
    space = {"namespace": "default"}
    await api.patch("deployments.apps", "hello", {"metadata": {"labels": {"a": "b"}}}, **space)
    await api.patch(
        "deployments.apps", "hello", {"status": {"replicas": 1}}, **space, subresource="status"
    )
    made = await api.patch("deployments.apps", "hello", {"spec": {"replicas": 2}}, **space)
    assert made["metadata"]["generation"] == 2


async def test_status_and_spec_are_written_apart(api):
    await api.create("deployments.apps", {**deployment(), "status": {"replicas": 7}})
    patch = {"spec": {"replicas": 5}, "status": {"replicas": 5}}

    made = await api.patch("deployments.apps", "hello", patch, namespace="default")
    assert (made["spec"]["replicas"], made["status"]) == (5, {})

    patch = {"spec": {"replicas": 6}, "status": {"replicas": 6}}
    made = await api.patch(
        "deployments.apps", "hello", patch, namespace="default", subresource="status"
    )
    assert (made["spec"]["replicas"], made["status"]) == (5, {"replicas": 6})


async def test_a_deployments_selector_is_immutable(api):
    await api.create("deployments.apps", deployment())
    labels = {"app": "other"}
    patch = {
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    }
    work = api.patch("deployments.apps", "hello", patch, namespace="default")
    assert await refusal(work) == (422, "Invalid")


async def test_a_selector_must_match_its_template(api):
    wrong = deployment(selector={"matchLabels": {"app": "other"}})
    with pytest.raises(ApiError, match="`selector` does not match template `labels`"):
        await api.create("deployments.apps", wrong)


async def test_a_value_of_the_wrong_type_is_named_with_its_path(api):
    with pytest.raises(ApiError, match=r"spec\.replicas: .*integer") as caught:
        await api.create("deployments.apps", deployment(replicas="three"))
    assert caught.value.code == 400


async def test_all_missing_fields_are_told_at_once(api):
    broken = {"metadata": {"name": "x", "namespace": "default"}, "spec": {"containers": [{}]}}
    with pytest.raises(ApiError) as caught:
        await api.create("pods", broken)
    assert {cause["field"] for cause in caught.value.details["causes"]} >= {
        "spec.containers[0].name"
    }


async def test_services_get_different_addresses_that_stay(api):
    first = await api.create("services", service("one"))
    second = await api.create("services", service("two"))
    assert first["spec"]["clusterIP"] != second["spec"]["clusterIP"]

    replaced = await api.update("services", service("one", selector={"a": "b"}))
    assert replaced["spec"]["clusterIP"] == first["spec"]["clusterIP"]

    work = api.patch("services", "one", {"spec": {"clusterIP": "10.96.9.9"}}, namespace="default")
    assert await refusal(work) == (422, "Invalid")


async def test_a_headless_service_has_no_address(api):
    made = await api.create("services", service(clusterIP="None"))
    assert made["spec"]["clusterIPs"] == ["None"]


@pytest.mark.parametrize("address", ["192.168.1.1", "nonsense"])
async def test_an_address_outside_the_range_is_refused(api, address):
    assert await refusal(api.create("services", service(clusterIP=address))) == (422, "Invalid")


async def test_a_taken_address_is_refused_and_free_again_after_deletion(api):
    await api.create("services", service("one", clusterIP="10.96.0.10"))
    work = api.create("services", service("two", clusterIP="10.96.0.10"))
    assert await refusal(work) == (422, "Invalid")

    await api.delete("services", "one", "default")
    await api.create("services", service("two", clusterIP="10.96.0.10"))


async def test_an_external_name_needs_no_address(api):
    made = await api.create("services", service(type="ExternalName", externalName="a.b", ports=[]))
    assert "clusterIP" not in made["spec"]


async def test_the_defaults_that_clients_see_are_filled_in(api):
    made = await api.create("pods", pod(image="hello"))
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert made["spec"]["serviceAccountName"] == "default"
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"

    port = (await api.create("services", service()))["spec"]["ports"][0]
    assert port == {"port": 80, "protocol": "TCP", "targetPort": 80}


async def test_plain_text_of_a_secret_is_encoded(api):
    given = {"metadata": {"name": "s", "namespace": "default"}, "stringData": {"a": "b"}}
    made = await api.create("secrets", given)
    assert (made["data"], made["type"]) == ({"a": "Yg=="}, "Opaque")


async def test_admission_sees_the_defaulted_object_and_may_change_it(api):
    seen = []

    async def admit(request: AdmissionRequest):
        seen.append((request.operation, request.resource, request.user.name))
        return {**request.obj, "data": {"by": "admission"}}

    api.admission = admit
    made = await api.create("configmaps", config(), user=User("ann"))

    assert made["data"] == {"by": "admission"}
    assert seen == [("CREATE", "configmaps", "ann")]


async def test_what_admission_refuses_is_not_stored(api):
    async def refuse(_):
        raise ApiError(403, "Forbidden", "no")

    api.admission = refuse
    assert await refusal(api.create("configmaps", config())) == (403, "Forbidden")
    assert await api.list("configmaps") == []


async def test_a_patch_is_made_again_when_the_object_changes_during_admission(api):
    await api.create("configmaps", config(data={"n": "0"}))
    raced = []

    async def race(request):
        if not raced:
            raced.append(True)
            await api.patch("configmaps", "settings", {"data": {"other": "1"}}, namespace="default")
        return request.obj

    api.admission = race
    made = await api.patch("configmaps", "settings", {"data": {"n": "1"}}, namespace="default")
    assert made["data"] == {"n": "1", "other": "1"}


async def test_an_immutable_config_map_stays(api):
    await api.create("configmaps", {**config(data={"a": "b"}), "immutable": True})
    work = api.patch("configmaps", "settings", {"data": {"a": "c"}}, namespace="default")
    assert await refusal(work) == (422, "Invalid")


async def test_binding_puts_a_pod_on_a_node_once(api):
    await api.create("pods", pod())
    binding = {"metadata": {"name": "sleep", "namespace": "default"}, "target": {"name": "n1"}}
    await api.create("pods", binding, subresource="binding")

    assert (await api.get("pods", "sleep", "default"))["spec"]["nodeName"] == "n1"
    assert await refusal(api.create("pods", binding, subresource="binding")) == (409, "Conflict")


async def test_a_pods_containers_cannot_change_but_their_image_can(api):
    await api.create("pods", pod())
    image = {"spec": {"containers": [{"name": "main", "image": "new"}]}}
    await api.patch("pods", "sleep", image, namespace="default", kind="strategic")

    command = {"spec": {"containers": [{"name": "main", "command": ["x"]}]}}
    work = api.patch("pods", "sleep", command, namespace="default", kind="strategic")
    assert await refusal(work) == (422, "Invalid")


async def test_a_job_selects_its_own_pods(api):
    spec = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
    given = {
        "metadata": {"name": "j", "namespace": "default"},
        "spec": {"template": {"spec": spec}},
    }
    made = await api.create("jobs.batch", given)
    wanted = made["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= made["spec"]["template"]["metadata"]["labels"].items()


async def test_the_scale_of_a_deployment_is_its_replicas(api):
    await api.create("deployments.apps", deployment())
    scale = await api.patch(
        "deployments.apps",
        "hello",
        {"spec": {"replicas": 4}},
        namespace="default",
        subresource="scale",
    )
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == (
        "Scale",
        {"replicas": 4},
        "app=hello",
    )
    assert (await api.get("deployments.apps", "hello", "default"))["spec"]["replicas"] == 4


async def test_events_are_the_same_in_both_groups(api):
    event = {
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "pulled",
    }
    await api.create("events", event)
    newer = api.state.catalog.find(group="events.k8s.io", version="v1", plural="events")
    assert newer.key == "events"


async def test_who_writes_the_status_of_a_pod_may_describe_it_too(api):
    made = await api.create("pods", pod())
    metadata = {**made["metadata"], "annotations": {"seen": "yes"}, "ownerReferences": []}

    changed = await api.update("pods", {**made, "metadata": metadata}, subresource="status")

    assert changed["metadata"]["annotations"] == {"seen": "yes"}
    assert changed["spec"] == made["spec"]
