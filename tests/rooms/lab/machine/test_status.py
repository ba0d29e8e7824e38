"""What a pod's status says."""

import datetime

from isthmus.lab.machine import status

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SANDBOX = status.Sandbox("10.0.0.9", "192.168.1.3", NOW)


def pod(**fields):
    return {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": []}, **fields}


def running(name="main", *, ready=True, **fields):
    state = status.ContainerState(name, "i", initial=fields.pop("initial", False), **fields)
    state.running_since, state.ready, state.started = NOW, ready, True
    return state


def ended(code, name="main", *, initial=False):
    state = status.ContainerState(name, "i", initial=initial)
    state.ended = status.Ended(code, "Completed", "", NOW, NOW)
    return state


def of(*states, final=False, obj=None):
    return status.of_pod(obj or pod(), states, sandbox=SANDBOX, final=final, now=NOW)


def conditions(found):
    return {each["type"]: each["status"] for each in found["conditions"]}


def test_a_pod_is_ready_when_all_its_containers_are():
    assert conditions(of(running(), running("other")))["Ready"] == "True"
    assert conditions(of(running(), running("other", ready=False)))["Ready"] == "False"


def test_an_init_container_is_ready_when_it_has_done_its_part():
    helper = running("helper", initial=True, helper=True, ready=False)
    found = of(ended(0, "done", initial=True), ended(1, "failed", initial=True), helper)

    assert [one["ready"] for one in found["initContainerStatuses"]] == [True, False, False]


def test_a_pod_waits_while_its_first_containers_run():
    found = of(running("first", initial=True), status.ContainerState("main", "i", initial=False))

    assert found["phase"] == "Pending"
    assert conditions(found)["Initialized"] == "False"
    assert found["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"


def test_a_helper_that_has_started_holds_nobody_back():
    helper = running("proxy", initial=True, helper=True)

    assert conditions(of(helper, running()))["Ready"] == "True"


def test_how_all_containers_ended_decides_the_phase():
    assert of(ended(0), ended(0), final=True)["phase"] == "Succeeded"
    assert of(ended(0), ended(1), final=True)["phase"] == "Failed"
    assert of(ended(1, initial=True), ended(0, "x"), final=True)["phase"] == "Failed"


def test_a_condition_that_stays_keeps_its_moment():
    old = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    found = of(running(), obj=pod(status={"conditions": [old]}))

    ready = next(each for each in found["conditions"] if each["type"] == "Ready")
    assert ready["lastTransitionTime"] == old["lastTransitionTime"]


def test_conditions_of_others_are_kept():
    other = {"type": "example.com/gate", "status": "True"}

    assert other in of(running(), obj=pod(status={"conditions": [other]}))["conditions"]


def test_a_readiness_gate_that_nobody_has_opened_keeps_a_pod_unready():
    gated = pod()
    gated["spec"]["readinessGates"] = [{"conditionType": "example.com/gate"}]

    assert conditions(of(running(), obj=gated))["Ready"] == "False"
    assert conditions(of(running(), obj=gated))["ContainersReady"] == "True"


def test_quality_of_service_follows_requests_and_limits():
    def of_resources(**resources):
        return status.qos_class({"spec": {"containers": [{"resources": resources}]}})

    both = {"cpu": "1", "memory": "1Gi"}
    assert of_resources() == "BestEffort"
    assert of_resources(requests={"cpu": "1"}) == "Burstable"
    assert of_resources(limits=both) == "Guaranteed"
