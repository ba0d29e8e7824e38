"""Which pods a node asks from the known address, and how often the kernel hears of it."""

import asyncio

import pytest

from isthmus.node.cni import probing


@pytest.fixture
def applied():
    return []


@pytest.fixture
def probed(applied):
    # A table, a chain and a rule for each pod.
    made = probing.Probed(apply=lambda messages: applied.append(len(messages) - 4))
    yield made
    made.close()


async def becomes(applied, wanted):
    deadline = asyncio.get_running_loop().time() + 5
    while applied != wanted and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  # as others
        await asyncio.sleep(0.01)
    return applied == wanted


async def test_pods_that_join_together_are_one_change(probed, applied):
    probed.include({"10.0.0.1", "10.0.0.2"})
    probed.include({"10.0.0.2"})

    assert applied == [2]


async def test_pods_that_leave_together_are_one_change(probed, applied):
    probed.include({"10.0.0.1", "10.0.0.2", "10.0.0.3"})
    probed.leave_out("10.0.0.1")
    probed.leave_out("10.0.0.2")
    probed.leave_out("10.0.0.9")
    assert applied == [3]

    assert await becomes(applied, [3, 1])


async def test_who_comes_back_at_once_was_never_gone(probed, applied):
    probed.include({"10.0.0.1", "10.0.0.2"})
    probed.leave_out("10.0.0.1")
    probed.include({"10.0.0.1"})
    probed.leave_out("10.0.0.2")

    assert await becomes(applied, [2, 1])


async def test_what_the_kernel_refuses_is_asked_for_again():
    calls = []

    def refuse(messages):
        calls.append(len(messages))
        if len(calls) == 1:
            raise OSError("the kernel refused")

    probed = probing.Probed(apply=refuse)
    with pytest.raises(OSError, match="the kernel refused"):
        probed.include({"10.0.0.1"})

    probed.include({"10.0.0.1"})

    assert len(calls) == 2
