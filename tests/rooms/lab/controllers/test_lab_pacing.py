import math

from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.controllers import pacing


def test_surge_is_rounded_up_and_unavailable_down():
    assert pacing.pace(5, surge="25%", unavailable="25%") == pacing.Pace(2, 1)


def test_a_pace_that_allows_nothing_lets_one_be_missing():
    assert pacing.pace(2, surge=0, unavailable="25%") == pacing.Pace(0, 1)


def test_pods_that_do_not_serve_go_first():
    old = [pacing.Count(wanted=3, available=1), pacing.Count(wanted=2, available=2)]

    wishes = pacing.rolling(5, [*old, pacing.Count(0, 0)], pacing.Pace(1, 1))

    assert wishes == [2, 2, 1]


@given(
    replicas=st.integers(0, 20),
    old=st.integers(0, 20),
    surge=st.integers(0, 5),
    unavailable=st.integers(0, 5),
)
def test_a_rollout_ends_and_never_serves_with_too_few(replicas, old, surge, unavailable):
    pace = pacing.pace(replicas, surge=surge, unavailable=unavailable)
    wishes = [max(old, replicas), 0]
    for _ in range(200):
        counts = [pacing.Count(wish, wish) for wish in wishes]
        wishes = pacing.rolling(replicas, counts, pace)
        assert sum(wish for wish in wishes) >= replicas - pace.unavailable
        assert sum(wishes) <= max(old, replicas) + pace.surge or math.isinf(old)
    assert wishes == [0, replicas]
