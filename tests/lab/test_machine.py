"""The machine below the lab's clusters, on real namespaces, as root and as an ordinary user."""

import time

import booted
import pytest
import pytest_asyncio

from isthmus.kube import kinds
from isthmus.testing import pace

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module", params=booted.WAYS)
def lab(request):
    with booted.booted_lab(request.param) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(lab):
    async with lab.client("cluster1") as server:
        yield server
    await booted.connections_closed()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(lab):
    async with lab.client("cluster2") as server:
        yield server
    await booted.connections_closed()


@pytest_asyncio.fixture(loop_scope="module")
async def near(one):
    """A client pod in cluster1."""
    if not await one.find(kinds.POD, "near", namespace="default"):
        await booted.start(one, booted.pod("near"))
    return "near"


async def test_nodes_are_ready_and_say_where_they_are(one):
    nodes = await one.list_(kinds.NODE)

    assert [booted.condition(node, "Ready") for node in nodes] == ["True", "True"]
    zones = {node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes}
    assert zones == {"region1-zone1", "region1-zone2"}


async def test_a_second_lab_of_the_same_name_is_refused(lab):
    again = lab.command("up", "primary-remote", "--name", lab.name, check=False)

    assert again.returncode == 1
    assert "ISM-LAB-206" in again.stderr


async def test_secrets_of_a_lab_are_for_its_user_alone(lab):
    assert (lab.home / lab.name / "kubeconfig").stat().st_mode & 0o077 == 0


async def test_a_service_spreads_over_its_pods_on_all_nodes(one, near):
    for name in ("balance-a", "balance-b"):
        await booted.start(
            one,
            booted.pod(
                name, image=booted.HELLO, labels={"app": "balance"}, c_readinessProbe=HEALTH
            ),
        )
    await one.create(kinds.SERVICE, booted.service("balance"))
    script = "for i in $(seq 40); do curl -s -m 20 http://balance:5000/hello; done"

    answers = (await booted.said(one, near, "sh", "-c", script)).splitlines()

    assert len(answers) == 40
    assert all(answer.startswith("Hello version: v1") for answer in answers)
    assert 8 <= sum("balance-a" in answer for answer in answers) <= 32


HEALTH = {"httpGet": {"path": "/health", "port": 5000}, "periodSeconds": 1}


async def test_a_service_without_pods_refuses_at_once(one, near):
    await one.create(kinds.SERVICE, booted.service("nobody"))
    await booted.until(lambda: _refused(one, near))


async def _refused(server, name):
    return "(7)" in await booted.greeting(server, name, "nobody")


async def test_a_pod_reaches_itself_through_its_service(one):
    manifest = booted.pod("mirror", image=booted.HELLO, c_readinessProbe=HEALTH)
    await booted.start(one, manifest)
    await one.create(kinds.SERVICE, booted.service("mirror"))

    async def answered():
        return "instance: mirror" in await booted.greeting(one, "mirror", "mirror")

    assert await booted.until(answered)


async def test_only_a_load_balancer_is_reached_from_the_other_network(one, two, near):
    manifest = booted.pod("far", image=booted.HELLO, c_readinessProbe=HEALTH)
    far = await booted.start(two, manifest)
    await two.create(kinds.SERVICE, booted.service("far", type="LoadBalancer"))

    async def address():
        found = await two.get(kinds.SERVICE, "far", namespace="default")
        ingress = found["status"].get("loadBalancer", {}).get("ingress")
        return ingress and ingress[0]["ip"]

    balancer = await booted.until(address)

    async def answered():
        return "instance: far" in await booted.greeting(one, near, balancer)

    assert balancer.startswith("172.30.0.")
    assert await booted.until(answered)
    assert "(7)" in await booted.greeting(one, near, far["status"]["podIP"])
    assert "(6)" in await booted.greeting(one, near, "far.default.svc.cluster.local")


async def test_within_a_network_the_source_address_is_kept(one, near):
    await booted.start(one, booted.pod("seen", image=booted.HELLO, c_readinessProbe=HEALTH))
    await one.create(kinds.SERVICE, booted.service("seen"))
    own = (await one.get(kinds.POD, near, namespace="default"))["status"]["podIP"]
    await booted.until(lambda: _greeted(one, near, "seen"))

    assert own in await one.logs("default", "seen")


async def _greeted(server, name, host):
    return "Hello" in await booted.greeting(server, name, host)


async def test_names_follow_services(one, near):
    await booted.start(
        one, booted.pod("stone", hostname="stone", subdomain="quarry", labels={"app": "quarry"})
    )
    await one.create(kinds.SERVICE, booted.service("quarry", clusterIP="None"))
    await one.create(
        kinds.SERVICE,
        {
            **booted.service("alias"),
            "spec": {
                "type": "ExternalName",
                "externalName": "kubernetes.default.svc.cluster.local",
            },
        },
    )
    ip = (await one.get(kinds.POD, "stone", namespace="default"))["status"]["podIP"]

    async def resolves():
        found = await booted.said(one, near, "getent", "ahostsv4", "stone.quarry")
        return found.startswith(ip)

    assert await booted.until(resolves)
    assert ip in await booted.said(one, near, "getent", "ahostsv4", "quarry.default")
    assert "10.110.0.1" in await booted.said(one, near, "getent", "ahostsv4", "alias")
    assert await booted.said(one, near, "getent", "hosts", "example.com") == ""


async def test_a_pod_waits_for_a_config_map_and_starts_when_it_appears(one):
    manifest = booted.pod(
        "patient",
        volumes=[{"name": "late", "configMap": {"name": "late"}}],
        c_volumeMounts=[{"name": "late", "mountPath": "/etc/late"}],
    )
    await one.create(kinds.POD, manifest)

    async def event():
        found = await one.list_(kinds.EVENT, namespace="default")
        return [each for each in found if each["reason"] == "FailedMount"]

    assert "late" in (await booted.until(event))[0]["message"]
    metadata = {"name": "late", "namespace": "default"}
    await one.create(
        kinds.CONFIG_MAP,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}},
    )
    await booted.ready(one, "patient")
    assert await booted.said(one, "patient", "cat", "/etc/late/a") == "1"

    await one.patch(kinds.CONFIG_MAP, "late", {"data": {"a": "2"}}, namespace="default")

    async def changed():
        return await booted.said(one, "patient", "cat", "/etc/late/a") == "2"

    assert await booted.until(changed)


async def test_containers_of_a_pod_share_volumes_and_network_after_their_init(one):
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    script = "cat /shared/word; sleep infinity"
    manifest = booted.pod(
        "pair",
        volumes=[{"name": "shared", "emptyDir": {}}],
        c_volumeMounts=mounts,
        initContainers=[
            {
                "name": "first",
                "image": booted.CURL,
                "volumeMounts": mounts,
                "command": ["sh", "-c", "echo -n one > /shared/word"],
            },
            {
                "name": "second",
                "image": booted.CURL,
                "volumeMounts": mounts,
                "command": ["sh", "-c", "echo two >> /shared/word"],
            },
        ],
    )
    manifest["spec"]["containers"].append(
        {
            "name": "other",
            "image": booted.CURL,
            "volumeMounts": mounts,
            "command": ["sh", "-c", script],
        }
    )

    found = await booted.start(one, manifest)

    states = found["status"]["initContainerStatuses"]
    assert [each["state"]["terminated"]["exitCode"] for each in states] == [0, 0]

    async def logged():
        return await one.logs("default", "pair", "other") == "onetwo\n"

    assert await booted.until(logged)


async def test_environment_and_downward_api_tell_a_pod_about_itself(one):
    manifest = booted.pod(
        "told",
        volumes=[
            {
                "name": "info",
                "downwardAPI": {
                    "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                },
            },
        ],
        c_volumeMounts=[{"name": "info", "mountPath": "/etc/podinfo"}],
        c_env=[
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "GREETING", "value": "from $(IP)"},
        ],
        c_args=[],
    )

    found = await booted.start(one, manifest)

    environment = await booted.said(one, "told", "env")
    assert f"GREETING=from {found['status']['podIP']}\n" in environment
    assert await booted.said(one, "told", "cat", "/etc/podinfo/labels") == 'app="told"'


async def test_an_unknown_image_is_explained(one):
    await one.create(kinds.POD, booted.pod("stranger", image="example.com/nothing:1"))

    async def waiting():
        found = await one.get(kinds.POD, "stranger", namespace="default")
        statuses = found["status"].get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {}).get("reason") == "ErrImagePull"

    assert await booted.until(waiting)
    events = await one.list_(kinds.EVENT, namespace="default")
    assert any(
        "curlimages/curl" in each["message"] for each in events if each["reason"] == "Failed"
    )
    await one.delete(kinds.POD, "stranger", namespace="default")


async def test_a_crashing_container_is_started_again_and_its_last_words_are_kept(one):
    command = ["sh", "-c", "echo dying words; exit 3"]
    await one.create(kinds.POD, booted.pod("mortal", c_command=command))

    async def restarted():
        found = await one.get(kinds.POD, "mortal", namespace="default")
        statuses = found["status"].get("containerStatuses") or [{}]
        return statuses[0].get("restartCount", 0) >= 2 and statuses[0]

    status = await booted.until(restarted)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    await one.delete(kinds.POD, "mortal", namespace="default")


async def test_a_failing_liveness_probe_restarts_and_readiness_follows_the_answers(one):
    manifest = booted.pod(
        "sickly",
        c_command=["sh", "-c", "touch /tmp/well; sleep infinity"],
        c_livenessProbe={
            "exec": {"command": ["test", "-e", "/tmp/well"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
        c_readinessProbe={
            "exec": {"command": ["test", "-e", "/tmp/well"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
    )
    await booted.start(one, manifest)
    await booted.said(one, "sickly", "rm", "/tmp/well")

    async def restarted():
        found = await one.get(kinds.POD, "sickly", namespace="default")
        return found["status"]["containerStatuses"][0]["restartCount"] == 1

    assert await booted.until(restarted)
    await booted.ready(one, "sickly")


async def test_exec_passes_streams_and_exit_code(one, near):
    result = await one.exec("default", near, ["sh", "-c", "cat; echo bad >&2; exit 4"], stdin=b"in")

    assert (result.stdout, result.stderr, result.code) == (b"in", b"bad\n", 4)


async def test_an_app_has_no_power_over_the_network(one, near):
    status = await booted.said(one, near, "grep", "CapEff", "/proc/self/status")

    assert int(status.split()[1], 16) & (1 << 12) == 0


async def test_deleting_a_pod_runs_its_last_hook_and_confirms(one):
    manifest = booted.pod(
        "leaver",
        terminationGracePeriodSeconds=5,
        c_command=["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"],
        c_lifecycle={"preStop": {"exec": {"command": ["sleep", "0.2"]}}},
    )
    await booted.start(one, manifest)
    began = time.monotonic()
    await one.delete(kinds.POD, "leaver", namespace="default")

    async def gone():
        return await one.find(kinds.POD, "leaver", namespace="default") is None

    assert await booted.until(gone)
    assert 0.2 <= time.monotonic() - began < pace.promised(4)


async def test_a_pod_talks_to_its_api_server_as_its_account(one, near):
    script = (
        "D=/var/run/secrets/kubernetes.io/serviceaccount; curl -sS --cacert $D/ca.crt "
        '-H "Authorization: Bearer $(cat $D/token)" https://kubernetes.default.svc/api/v1/nodes'
    )

    answer = await booted.said(one, near, "sh", "-c", script)

    assert "system:serviceaccount:default:default" in answer
    assert "orbidden" in answer


async def test_the_lab_complains_of_nothing(lab):
    assert "Traceback" not in lab.log
    assert "task failed" not in lab.log
