"""Its place puts this folder on the path, so that every test can import `fakes`."""

import asyncio
import os

import hypothesis

# A deadline would measure the machine, and a run that nobody watches must be repeatable.
hypothesis.settings.register_profile("person", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_configure():
    # Otherwise pytest-asyncio's look for an earlier loop makes one that nobody closes.
    asyncio.set_event_loop(None)
