import pytest

from fakes import lab_cluster


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found:
        yield found


@pytest.fixture
async def front(cluster):
    async with lab_cluster.served(cluster):
        yield cluster
