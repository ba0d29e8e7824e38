import pytest

from fakes.lab_cluster import deployment

_REVISION = "deployment.kubernetes.io/revision"


def _settled(found):
    status = found.get("status", {})
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == status.get("replicas")
        and status.get("availableReplicas", 0) == found["spec"]["replicas"]
        and status["replicas"] == found["spec"]["replicas"]
    )


def _says(found, kind):
    conditions = found.get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), None)


async def test_a_deployment_gets_its_pods_and_says_so(machine):
    await machine.api.create("deployments.apps", deployment(replicas=3))

    found = await machine.until("deployments.apps", _settled)

    assert len(await machine.api.list("pods", "default")) == 3
    assert _says(found, "Available") == ("True", "MinimumReplicasAvailable")
    assert _says(found, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert found["metadata"]["annotations"][_REVISION] == "1"


async def test_a_new_template_replaces_every_pod_and_keeps_the_old_revision(machine):
    await machine.api.create("deployments.apps", deployment())
    await machine.until("deployments.apps", _settled)
    patch = deployment(image="two")["spec"]["template"]
    await machine.api.patch(
        "deployments.apps", "web", {"spec": {"template": patch}}, namespace="default"
    )

    await machine.until("deployments.apps", _settled)

    pods = await machine.api.list("pods", "default")
    sets = await machine.api.list("replicasets.apps", "default")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"two"}
    revisions = {s["metadata"]["annotations"][_REVISION]: s["spec"]["replicas"] for s in sets}
    assert revisions == {"1": 0, "2": 2}


async def test_undoing_a_rollout_reuses_the_old_replicaset_under_a_new_revision(machine):
    for image in ("one", "two", "one"):
        template = deployment(image=image)["spec"]["template"]
        if not await machine.exists("deployments.apps", "web"):
            await machine.api.create("deployments.apps", deployment(image=image))
        await machine.api.patch(
            "deployments.apps", "web", {"spec": {"template": template}}, namespace="default"
        )
        await machine.until("deployments.apps", _settled)

    sets = await machine.api.list("replicasets.apps", "default")
    revisions = {s["metadata"]["annotations"][_REVISION]: s["spec"]["replicas"] for s in sets}
    assert revisions == {"2": 0, "3": 2}


async def test_recreate_never_runs_old_and_new_together(machine):
    await machine.api.create("deployments.apps", deployment(strategy={"type": "Recreate"}))
    await machine.until("deployments.apps", _settled)
    template = deployment(image="two")["spec"]["template"]
    await machine.api.patch(
        "deployments.apps", "web", {"spec": {"template": template}}, namespace="default"
    )

    together = await machine.until(
        "pods", lambda pod: pod["spec"]["containers"][0]["image"] == "two"
    )

    assert together["spec"]["containers"][0]["image"] == "two"
    images = {p["spec"]["containers"][0]["image"] for p in await machine.api.list("pods")}
    assert images == {"two"}


@pytest.mark.parametrize("replicas", [0, 1, 5])
async def test_scaling_reaches_the_wished_number(machine, replicas):
    await machine.api.create("deployments.apps", deployment())
    await machine.until("deployments.apps", _settled)

    patch = {"spec": {"replicas": replicas}}
    await machine.api.patch("deployments.apps", "web", patch, namespace="default")
    await machine.until("deployments.apps", _settled)

    pods = await machine.api.list("pods", "default")
    assert len([p for p in pods if "deletionTimestamp" not in p["metadata"]]) == replicas


async def test_a_deleted_pod_is_replaced(machine):
    await machine.api.create("deployments.apps", deployment(replicas=1))
    await machine.until("deployments.apps", _settled)
    [first] = await machine.api.list("pods", "default")

    await machine.api.delete("pods", first["metadata"]["name"], "default")

    second = await machine.until(
        "pods", lambda pod: pod["metadata"]["name"] != first["metadata"]["name"]
    )
    assert second["metadata"]["ownerReferences"] == first["metadata"]["ownerReferences"]


def _job(**spec):
    template = {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "one"}]}
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": "default"},
        "spec": {"template": template, **spec},
    }


async def test_a_job_ends_when_its_pods_have(machine):
    await machine.api.create("jobs.batch", _job(completions=2, parallelism=1))
    for number in (1, 2):
        running = await machine.until("pods", lambda p: p["status"].get("phase") == "Running")
        await machine.end_pod(running, succeeded=True)
        job = await machine.until(
            "jobs.batch", lambda j, n=number: j.get("status", {}).get("succeeded") == n
        )

    job = await machine.until("jobs.batch", lambda j: _says(j, "Complete"))
    assert job["status"]["succeeded"] == 2
    assert "completionTime" in job["status"]


async def test_a_job_fails_after_its_last_try(machine):
    await machine.api.create("jobs.batch", _job(backoffLimit=0))
    running = await machine.until("pods", lambda p: p["status"].get("phase") == "Running")

    await machine.end_pod(running, succeeded=False)

    job = await machine.until("jobs.batch", lambda j: _says(j, "Failed"))
    assert _says(job, "Failed") == ("True", "BackoffLimitExceeded")


async def test_a_daemonset_has_one_pod_on_every_fitting_node(machine):
    await machine.node("n2")
    await machine.node("n3", ready=False)
    await machine.node("n4", disk="slow")
    body = deployment("agent")
    body |= {"kind": "DaemonSet"}
    body["spec"].pop("replicas")
    body["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}
                ]
            }
        }
    }
    await machine.api.create("daemonsets.apps", body)

    found = await machine.until(
        "daemonsets.apps", lambda d: d.get("status", {}).get("numberAvailable") == 3
    )

    nodes = {pod["spec"]["nodeName"] for pod in await machine.api.list("pods", "default")}
    assert nodes == {"n1", "n2", "n3"}
    assert found["status"]["desiredNumberScheduled"] == 3


async def test_a_daemonsets_next_pod_comes_before_the_last_one_goes(machine):
    body = deployment("agent") | {"kind": "DaemonSet"}
    body["spec"].pop("replicas")
    body["spec"]["updateStrategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await machine.api.create("daemonsets.apps", body)
    first = await machine.until("pods", lambda p: p["status"].get("phase") == "Running")
    template = {"spec": {"containers": [{"name": "main", "image": "two"}]}}
    change = {"spec": {"minReadySeconds": 3600, "template": template}}

    await machine.api.patch("daemonsets.apps", "agent", change, namespace="default")

    def is_next(pod):
        return pod["spec"]["containers"][0]["image"] == "two" and "phase" in pod["status"]

    after = await machine.until("pods", is_next)
    assert after["spec"]["nodeName"] == first["spec"]["nodeName"]
    both = await machine.api.list("pods", "default")
    assert len(both) == 2
    assert not [pod for pod in both if "deletionTimestamp" in pod["metadata"]]

    await machine.api.patch(
        "daemonsets.apps", "agent", {"spec": {"minReadySeconds": 0}}, namespace="default"
    )
    await machine.until(
        "daemonsets.apps", lambda d: d.get("status", {}).get("updatedNumberScheduled") == 1
    )


async def test_a_statefulset_names_its_pods_in_order(machine):
    body = deployment("db", replicas=2) | {"kind": "StatefulSet"}
    body["spec"]["serviceName"] = "db"
    await machine.api.create("statefulsets.apps", body)

    await machine.until(
        "statefulsets.apps", lambda s: s.get("status", {}).get("readyReplicas") == 2
    )

    pods = await machine.api.list("pods", "default")
    assert [pod["metadata"]["name"] for pod in pods] == ["db-0", "db-1"]
    assert pods[1]["spec"]["hostname"] == "db-1"
