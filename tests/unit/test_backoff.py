"""How long to wait: bounds, growth, and the server's wishes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modzy_relay.backoff import LONGEST_LOOK, LONGEST_RETRY, look_delay, retry_delay

#: The largest float below 1: what ``random.random`` can return at most.
ALMOST_ONE = 1 - 2**-53
chances = st.floats(0, ALMOST_ONE)
counts = st.integers(0, 10**6)
wishes = st.timedeltas(timedelta(seconds=1), timedelta(hours=2))


@given(deferrals=counts, chance=chances)
def test_a_retry_comes_between_a_second_and_a_quarter_of_an_hour(
    deferrals: int, chance: float
) -> None:
    """However often it was put off, and whatever the dice say."""
    delay = retry_delay(deferrals, lambda: chance)
    assert timedelta(seconds=1) <= delay <= LONGEST_RETRY


@pytest.mark.parametrize(
    ("deferrals", "ceiling"), [(0, 15), (1, 30), (2, 60), (5, 480), (6, 900), (60, 900)]
)
def test_retries_double_their_ceiling(deferrals: int, ceiling: float) -> None:
    """15 s, doubling to 15 min, with full jitter below."""
    assert retry_delay(deferrals, lambda: 0.0) == timedelta(seconds=1)
    top = retry_delay(deferrals, lambda: ALMOST_ONE).total_seconds()
    assert top == pytest.approx(ceiling)


@given(deferrals=counts, chance=chances, wish=wishes)
def test_the_servers_wish_is_obeyed_and_not_exceeded_by_much(
    deferrals: int, chance: float, wish: timedelta
) -> None:
    """Never before ``Retry-After``, and at most half of it later."""
    delay = retry_delay(deferrals, lambda: chance, wish)
    assert wish <= delay <= wish * 1.5 + timedelta(microseconds=1)


def test_callers_told_the_same_time_return_apart() -> None:
    """Jitter is added to the server's wish, or all would come back at once."""
    dice = iter([0.1, 0.9])
    minute = timedelta(minutes=1)
    first, second = (retry_delay(8, lambda: next(dice), minute) for _ in range(2))
    assert second - first > timedelta(seconds=0)


@given(looks=counts, chance=chances)
def test_a_look_comes_between_eight_seconds_and_twelve_minutes(looks: int, chance: float) -> None:
    """20 % jitter around 10 s growing to 10 min."""
    delay = look_delay(looks, lambda: chance)
    assert timedelta(seconds=8) <= delay <= LONGEST_LOOK * 1.2


def test_looks_grow_by_half() -> None:
    """A short job is noticed soon, a long one is not asked for all the time."""
    delays = [look_delay(looks, lambda: 0.5).total_seconds() for looks in range(12)]
    assert delays[:4] == [10.0, 15.0, 22.5, 33.75]
    assert delays[-1] == 600.0
