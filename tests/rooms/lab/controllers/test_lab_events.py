"""Events of controllers: what happened, in the order in which it did, repeats counted."""

from fakes.lab_cluster import deployment, pod
from isthmus.base import clock
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.controllers import events


async def told_of(cluster, kind):
    found = await cluster.api.list("events", "default")
    return [
        (each["reason"], each["message"])
        for each in found
        if each["involvedObject"]["kind"] == kind
    ]


async def test_repeats_are_counted_and_the_order_is_kept(cluster):
    recorder = events.Recorder(cluster.api, component="test", system_clock=clock.SystemClock())
    about = await cluster.api.create("pods", pod("one"))
    for reason in ("Zeroth", "First", "Second", "First"):
        await recorder.record(about, kind="Normal", reason=reason, message="same")

    found = [
        each
        for each in await cluster.api.list("events", "default")
        if each["source"]["component"] == "test"
    ]

    assert [(each["reason"], each["count"]) for each in found] == [
        ("Zeroth", 1),
        ("First", 2),
        ("Second", 1),
    ]


async def test_an_event_that_was_deleted_begins_anew(cluster):
    recorder = events.Recorder(cluster.api, component="test", system_clock=clock.SystemClock())
    about = await cluster.api.create("pods", pod("one"))
    await recorder.record(about, kind="Normal", reason="Seen", message="again")
    for each in await cluster.api.list("events", "default"):
        await cluster.api.delete("events", each["metadata"]["name"], "default")

    await recorder.record(about, kind="Normal", reason="Seen", message="again")

    assert ("Seen", "again") in await told_of(cluster, "Pod")


async def test_a_rollout_tells_how_it_scaled(machine):
    await machine.api.create("deployments.apps", deployment(replicas=2))
    await machine.until(
        "deployments.apps", lambda found: found.get("status", {}).get("availableReplicas") == 2
    )

    [(reason, message)] = await told_of(machine, "Deployment")
    assert reason == "ScalingReplicaSet"
    assert message.endswith("from 0 to 2")
    assert [each for each, _ in await told_of(machine, "ReplicaSet")] == ["SuccessfulCreate"] * 2


async def test_refused_pods_are_a_condition_until_they_are_not_refused(machine):
    admit = machine.api.admission

    async def refuse(request):
        if request.resource == "pods" and request.operation == "CREATE":
            raise ApiError(403, "Forbidden", "no pods today")
        return await admit(request)

    machine.api.admission = refuse
    await machine.api.create("deployments.apps", deployment())
    failing = await machine.until("deployments.apps", lambda found: failure_of(found))
    machine.api.admission = admit
    await machine.until("deployments.apps", lambda found: not failure_of(found))

    assert failure_of(failing) == "no pods today"
    reasons = [each for each, _ in await told_of(machine, "ReplicaSet")]
    assert reasons[0] == "FailedCreate"
    assert reasons.count("FailedCreate") == 1


def failure_of(found):
    conditions = found.get("status", {}).get("conditions", ())
    return next((each["message"] for each in conditions if each["type"] == "ReplicaFailure"), "")


async def test_pods_of_one_owner_are_spread_before_all_pods_are(machine):
    await machine.node("n2")
    for name in ("a", "b", "c"):
        await machine.api.create("pods", pod(name, nodeName="n1"))
    await machine.api.create("deployments.apps", deployment("web", replicas=2))
    await machine.until(
        "deployments.apps", lambda found: found.get("status", {}).get("availableReplicas") == 2
    )

    pods = await machine.api.list("pods", "default", labels="app=web")
    assert {each["spec"]["nodeName"] for each in pods} == {"n1", "n2"}
