"""What work costs against a loop of plain Python, with room for any machine; never a time alone.

A bound is several times what was seen when it was written: it catches what has become slower by a
factor, not by a share.
"""

import pytest
from bench import machine, pipeline

LOOPS = 300_000


@pytest.fixture(scope="module")
def turn_s():
    """Return the time of one turn of the calibration loop."""
    return machine.calibration() / 1000 / LOOPS


@pytest.fixture(scope="module")
def small_and_large():
    return pipeline.compiled(50), pipeline.compiled(500)


def test_a_change_costs_as_much_among_ten_times_the_services(small_and_large):
    small, large = small_and_large

    assert large.nodes == small.nodes
    assert large.change_s / small.change_s < 3  # 1.1 were seen; caches differ.


def test_a_change_costs_less_than_many_turns_of_a_loop(small_and_large, turn_s):
    small, _ = small_and_large

    assert small.change_s / turn_s < 80_000  # 18,000 were seen.


def test_telling_a_proxy_costs_less_than_some_turns_of_a_loop(turn_s):
    assert pipeline.pushed_s() / turn_s < 1_500  # 350 were seen.


def test_a_certificate_costs_less_than_many_turns_of_a_loop(turn_s):
    assert pipeline.signed_s() / turn_s < 30_000  # 5,500 were seen.
