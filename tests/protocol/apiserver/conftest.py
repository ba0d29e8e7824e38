"""A served cluster for every test that wants one."""

import pytest
import served_cluster


@pytest.fixture
async def cluster(tmp_path):
    async with served_cluster.served(tmp_path) as made:
        yield made


@pytest.fixture
async def marking(tmp_path):
    """A cluster whose idle watches get bookmarks at once."""
    async with served_cluster.served(tmp_path, bookmark_s=0.05) as made:
        yield made
