"""Two control planes over real TLS: what one shares, the other hears, and keeps, and forgets.

alpha (n1) links to beta (n2).
"""

import peering_world as world
import pytest


@pytest.fixture
def alpha():
    return world.Plane("alpha", network="n1")


@pytest.fixture
def beta():
    return world.Plane("beta", network="n2")


async def test_what_is_shared_is_heard_and_each_change_of_it(alpha, beta):
    beta.share("hello", ready=["10.2.0.1", "10.2.0.2"])
    beta.share("secret", scope="", ready=["10.2.0.3"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        await world.until(lambda: alpha.imports() == {"beta/hello": 2})
        assert alpha.status().is_connected

        beta.share("hello", ready=["10.2.0.1"])
        await world.until(lambda: alpha.imports() == {"beta/hello": 1})
        beta.share("hello", scope="")
        await world.until(lambda: alpha.imports() == {})
        assert beta.imports() == {}  # One way only.
