"""Its place puts this folder on the path, so that every test can import `fakes`."""

import asyncio
import functools
import os
import pathlib

import hypothesis
import pytest
from xdist import scheduler

HERE = pathlib.Path(__file__).parent
PEOPLE = {"root", "ordinary"}

# A deadline would measure the machine, and a run that nobody watches must be repeatable.
hypothesis.settings.register_profile("person", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_configure():
    # Otherwise pytest-asyncio's look for an earlier loop makes one that nobody closes.
    asyncio.set_event_loop(None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep together what shares a fixture, when tests run side by side (`make test`)."""
    return _BySharedFixture(config, log)


class _BySharedFixture(scheduler.LoadScopeScheduling):
    def _split_scope(self, nodeid):
        path, _, test = nodeid.partition("::")
        people = PEOPLE.intersection(test.partition("[")[2].rstrip("]").split("-"))
        if people and _uses(path, "mesh"):
            return f"mesh as {min(people)}"
        return "ambient mesh" if _uses(path, "ambient") else path


@functools.cache
def _uses(path, fixture):
    return "/lab/" in path and f"({fixture}" in (HERE.parent / path).read_text()
