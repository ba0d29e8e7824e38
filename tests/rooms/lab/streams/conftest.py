import pytest

from fakes import lab_cluster


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found:
        yield found


@pytest.fixture
async def front(cluster):
    async with lab_cluster.served(cluster):
        await cluster.node("n1")
        _ = cluster.nursery.start("fake kubelet", cluster.run_pods())
        await cluster.api.create("pods", lab_cluster.pod())
        await cluster.until("pods", lambda pod: pod["status"].get("podIP"))
        yield cluster
