"""Python's own clients work against a lab: programs in pods, logs, watches."""

import booted
import kubernetes_asyncio
import pytest
import pytest_asyncio
from kubernetes_asyncio.stream import WsApiClient

from isthmus.kube import kinds

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def lab():
    with booted.booted_lab("ordinary", "single") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(lab):
    async with lab.client("cluster1") as server:
        script = "echo from the pod; sleep infinity"
        await booted.start(server, booted.pod("tool", c_command=["sh", "-c", script]))

        async def written():
            return await server.logs("default", "tool")

        await booted.until(written)
        assert await server.find(kinds.POD, "tool", namespace="default")
    await booted.connections_closed()
    return "tool"


async def configured(lab):
    made = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(
        str(lab.home / lab.name / "kubeconfig"), client_configuration=made
    )
    return made


async def test_kubernetes_asyncio_runs_a_program_in_a_pod(lab, pod):
    async with WsApiClient(await configured(lab)) as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        said = await core.connect_get_namespaced_pod_exec(
            pod, "default", command=["echo", "hello"], stdout=True, stderr=True
        )
    await booted.connections_closed()

    assert said == "hello\n"


async def test_kubernetes_asyncio_reads_logs(lab, pod):
    async with kubernetes_asyncio.client.ApiClient(await configured(lab)) as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        said = await core.read_namespaced_pod_log(pod, "default")
    await booted.connections_closed()

    assert said == "from the pod\n"
