"""Its place puts this folder on the path, so that every test can import `fakes`."""

import asyncio


def pytest_configure():
    # Otherwise pytest-asyncio's look for an earlier loop makes one that nobody closes.
    asyncio.set_event_loop(None)
