import pytest

from fakes import lab_cluster


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found:
        yield found


@pytest.fixture
async def machine(cluster):
    await cluster.node("n1")
    _ = cluster.nursery.start("fake kubelet", cluster.run_pods())
    return cluster
