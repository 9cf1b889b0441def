"""Loaded by Python at the start of an app process of the fault matrix, by way of PYTHONPATH.

It does what no proxy can do from outside, and nothing unless the environment asks for it:

- ``FAULTS_CONTROL``, a file of 16 bytes shared with the campaign: a double, by which this
  process's wall clock (``time.time``, ``datetime.now``) is off; and a 64-bit number that says where
  the process has to stop itself (SIGSTOP) next: 1, after ``before_send`` has allowed a POST and
  before its first byte; 2, after the last look at the time and before the body of a POST; 0,
  nowhere. Monotonic clocks are left alone, as an administrator or NTP leaves them alone.
- ``FAULTS_SWEEP_SECONDS``: the sweep's grace and overdue times, ten minutes in the product, so that
  its repairs can be seen in a test.
"""

import datetime as dt
import mmap
import os
import signal
import struct
import threading
import time
from datetime import datetime as RealDatetime  # noqa: N812 - tells it from its stand-in
from pathlib import Path
from typing import Any, Self

_CONTROL = os.environ.get("FAULTS_CONTROL")
_SWEEP = os.environ.get("FAULTS_SWEEP_SECONDS")


def _open_control(path: str) -> mmap.mmap:
    with Path(path).open("r+b") as file:
        return mmap.mmap(file.fileno(), 16)


def _step_wall_clock(control: mmap.mmap) -> None:
    real_time = time.time

    def stepped_time() -> float:
        return real_time() + float(struct.unpack_from("<d", control, 0)[0])

    class AnyDatetime(type):
        """Lets values that C code made pass for the replaced class."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, RealDatetime)

    class SteppedDatetime(RealDatetime, metaclass=AnyDatetime):
        """A datetime whose present is the stepped one."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            """The stepped present."""
            return cls.fromtimestamp(stepped_time(), tz)

        @classmethod
        def utcnow(cls) -> Self:
            """The stepped present, naive."""
            return cls.fromtimestamp(stepped_time(), dt.UTC).replace(tzinfo=None)

    time.time = stepped_time
    dt.datetime = SteppedDatetime  # type: ignore[misc] # the point of this module


def _stop_where_told(control: mmap.mmap) -> None:
    import http.client

    from modzy_relay.modzy_api import watched

    allow = watched.Exchange.begin_sending
    write = http.client.HTTPConnection.send

    def stop_if_told(place: int) -> None:
        if struct.unpack_from("<q", control, 8)[0] == place:
            struct.pack_into("<q", control, 8, 0)
            # To this thread, which then stands still before it does anything else; sent to the
            # process, the signal may reach another thread first.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def begin_sending(exchange: watched.Exchange) -> None:
        allow(exchange)
        if exchange._before_send is not None:
            stop_if_told(1)

    def send(connection: http.client.HTTPConnection, data: Any) -> None:
        # The only body that is sent to Modzy is that of a new job, a JSON object.
        if isinstance(connection, watched._WatchedConnection) and data[:1] == b"{":
            stop_if_told(2)
        write(connection, data)

    watched.Exchange.begin_sending = begin_sending  # type: ignore[assignment,method-assign] # as above
    http.client.HTTPConnection.send = send  # type: ignore[assignment,method-assign] # as above


def _shorten_sweep(seconds: float) -> None:
    from modzy_relay import sweep

    sweep.GRACE = sweep.OVERDUE = sweep._SPREAD = dt.timedelta(seconds=seconds)
    sweep._OVERLAP = dt.timedelta(seconds=seconds)


if _CONTROL:
    _shared = _open_control(_CONTROL)
    _step_wall_clock(_shared)
    _stop_where_told(_shared)
if _SWEEP:
    _shorten_sweep(float(_SWEEP))
