"""The circuit breaker: when it opens, how long it stays open, how it lets callers back."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from modzy_relay.breaker import Breaker
from modzy_relay.testing import ManualClock


class Setting:
    """A breaker on a manual clock, with dice that always show the middle."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.breaker = Breaker(self.clock.ticks, lambda: 0.5)

    def call(self, *, ok: bool | None, retry_after: float | None = None) -> float:
        """One whole call; returns the seconds to stay away instead if it is not let through."""
        with self.breaker.enter() as passage:
            if passage.wait:
                return passage.wait
            if ok:
                passage.succeeded()
            elif ok is False:
                passage.failed("503", retry_after)
        return 0.0

    def open(self) -> None:
        """Fail until calls are turned away."""
        for _ in range(10):
            if self.call(ok=False):
                return
        raise AssertionError("the breaker does not open")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(timedelta(seconds=seconds))


@pytest.fixture
def setting() -> Setting:
    """A fresh breaker."""
    return Setting()


def test_a_few_failures_are_not_an_outage(setting: Setting) -> None:
    """Two in a row let the next call through, and a success starts the count again."""
    for ok in (False, False, True, False, False, True):
        assert setting.call(ok=ok) == 0.0


def test_three_failures_in_a_row_turn_callers_away_at_once(setting: Setting) -> None:
    """Nobody waits for a time-out of a service that is down."""
    for _ in range(3):
        assert setting.call(ok=False) == 0.0
    wait = setting.call(ok=True)
    assert 7.5 <= wait <= 15.0


def test_what_is_not_modzys_doing_does_not_count(setting: Setting) -> None:
    """A call that ended without telling of Modzy changes nothing."""
    for _ in range(10):
        assert setting.call(ok=None) == 0.0


def test_a_wish_of_the_server_opens_it_at_the_first_failure(setting: Setting) -> None:
    """``Retry-After`` is for everybody, not only for the call that was told."""
    setting.call(ok=False, retry_after=120.0)
    assert setting.call(ok=True) == pytest.approx(120.0)


def test_an_absurd_wish_is_cut_to_an_hour(setting: Setting) -> None:
    """A server cannot switch the relay off for a day."""
    setting.call(ok=False, retry_after=86_400.0)
    assert setting.call(ok=True) == pytest.approx(3600.0)


def test_pauses_grow_to_five_minutes(setting: Setting) -> None:
    """During a long outage there is one call in a few minutes."""
    setting.open()
    pauses = []
    for _ in range(10):
        pause = setting.call(ok=True)
        pauses.append(pause)
        setting.wait(pause)
        assert setting.call(ok=False) == 0.0  # the one call that looks whether it is over
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(225.0)


def test_after_a_pause_one_call_goes_at_a_time(setting: Setting) -> None:
    """While the first one is under way, the others are told to come back soon."""
    setting.open()
    setting.wait(15)
    with setting.breaker.enter() as first:
        assert not first.wait
        assert 5.0 <= setting.call(ok=True) <= 10.0
        first.succeeded()


def test_each_success_doubles_how_many_may_go_together(setting: Setting) -> None:
    """A recovered Modzy is not met by all that waited: 1, 2, 4, ... 32, then no limit."""
    setting.open()
    setting.wait(15)
    for window in (1, 2, 4, 8, 16, 32):
        passages = [setting.breaker.enter() for _ in range(window)]
        assert not any(passage.wait for passage in passages)
        assert setting.breaker.enter().wait
        passages[0].succeeded()
        for passage in passages:
            with passage:
                pass
    assert not any(setting.breaker.enter().wait for _ in range(200))


def test_a_failure_while_it_recovers_opens_it_again(setting: Setting) -> None:
    """One failed probe is enough to stay away for longer."""
    setting.open()
    first = setting.call(ok=True)
    setting.wait(first)
    setting.call(ok=False)
    assert setting.call(ok=True) > first


def test_calls_under_way_when_it_opens_do_not_prolong_the_pause(setting: Setting) -> None:
    """Thirty time-outs of one moment are one outage, not thirty."""
    passages = [setting.breaker.enter() for _ in range(30)]
    for passage in passages:
        with passage:
            passage.failed("timed out")
    assert setting.call(ok=True) <= 15.0


def test_a_late_success_of_before_does_not_close_it(setting: Setting) -> None:
    """An answer to a call from before the outage says nothing about now."""
    old = setting.breaker.enter()
    setting.open()
    with old:
        old.succeeded()
    assert setting.call(ok=True) > 0.0


def test_an_exception_gives_the_passage_back(setting: Setting) -> None:
    """A caller that crashes does not block the recovery."""
    setting.open()
    setting.wait(15)
    with pytest.raises(RuntimeError), setting.breaker.enter():
        raise RuntimeError("the caller's own trouble")
    assert setting.call(ok=True) == 0.0


def test_threads_do_not_slip_through(setting: Setting) -> None:
    """Of many threads that come at the end of a pause, one goes."""
    setting.open()
    setting.wait(15)
    waits: list[float] = []
    ready = threading.Barrier(16)

    def enter() -> None:
        ready.wait()
        waits.append(setting.breaker.enter().wait)

    threads = [threading.Thread(target=enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([wait for wait in waits if not wait]) == 1
