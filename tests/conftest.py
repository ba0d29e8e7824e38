"""Its place puts this folder on the path, so that every test can import `fakes`."""

import asyncio
import os

import hypothesis
import pytest

# A deadline would measure the machine, and a run that nobody watches must be repeatable.
hypothesis.settings.register_profile("person", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_configure():
    # Otherwise pytest-asyncio's look for an earlier loop makes one that nobody closes.
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items):
    """Keep together what shares a fixture, when tests run side by side (`make test`)."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_shared_by(item)))


def _shared_by(item):
    if "mesh" in item.fixturenames and "lab" in item.keywords:
        return f"mesh as {item.callspec.params['mesh']}"
    return item.path.name
