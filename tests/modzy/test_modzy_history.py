"""The job history is read to its end, whichever way a server counts its pages."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modzy_servers import API_KEY, json_transport, unhurried

from modzy_relay.modzy_api import (
    HistoryInconclusiveError,
    Job,
    ModzyClient,
    ModzyError,
    NotFoundError,
    StatusError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from modzy_relay.modzy_api import Request

T0 = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def entry(number: int, *, item_key: str | None = None) -> dict[str, Any]:
    """A history entry; later numbers are later jobs."""
    return {
        "jobIdentifier": f"job-{number:04}",
        "createdAt": (T0 + timedelta(seconds=number)).isoformat(),
        "jobInputs": [{"identifier": item_key or f"item-{number}"}],
    }


@dataclass
class HistoryServer:
    """A server with one way to count pages and one way to say that there are no more.

    Attributes:
        first: Number of the first page.
        cap: Most jobs on a page, whatever is asked for.
        overlap: Jobs at the end of a page that the next one begins with.
        past_the_end: Status for pages past the end; 200 with ``repeats`` for the last page again.
        arriving: Jobs that come in before each request, at the front of the list.
    """

    jobs: list[dict[str, Any]]
    first: int = 1
    cap: int = 100
    overlap: int = 0
    past_the_end: int = 200
    repeats: bool = False
    arriving: int = 0
    pages: list[int] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(5000))

    def answer(self, request: Request) -> tuple[int, object]:
        """One page."""
        query = dict(request.query)
        for _ in range(self.arriving):
            self.jobs.insert(0, entry(next(self.numbers)))
        size = min(self.cap, int(query["per-page"]))
        index = int(query["page"]) - self.first
        self.pages.append(int(query["page"]))
        step = max(1, size - self.overlap)
        starts = list(range(0, max(1, len(self.jobs)), step))
        if 0 <= index < len(starts):
            return 200, self.jobs[starts[index] :][:size]
        if self.repeats:
            return 200, self.jobs[starts[-1 if index > 0 else 0] :][:size]
        return self.past_the_end, []


def client_of(server: HistoryServer) -> ModzyClient:
    """A client whose requests go to this server."""
    return ModzyClient("https://modzy.test", API_KEY, transport=json_transport(server.answer))


@unhurried
@given(
    count=st.integers(0, 30),
    per_page=st.integers(1, 8),
    cap=st.integers(1, 8),
    first=st.sampled_from([0, 1]),
    overlap=st.integers(0, 2),
    past_the_end=st.sampled_from([200, 400, 404]),
    repeats=st.booleans(),
    arriving=st.integers(0, 2),
)
def test_no_job_is_overlooked(count: int, per_page: int, **server: Any) -> None:
    """Every job that was there at the start is found, each once, or the walk fails loudly.

    It may fail where a full page, or none at all, is followed by an error: that can be the end
    of the history, or a limit on how deep pages may go.
    """
    jobs = [entry(number) for number in range(count)]
    expected = {job["jobIdentifier"] for job in jobs}
    # As many arrivals as a page brings new jobs would push jobs ahead of the walk for ever.
    step = max(1, min(per_page, server["cap"]) - server["overlap"])
    server["arriving"] = min(server["arriving"], step - 1)
    try:
        found = [
            job.job_identifier
            for job in client_of(HistoryServer(jobs, **server)).jobs.history(
                per_page=per_page, max_pages=60
            )
        ]
    except HistoryInconclusiveError:
        # The last page again and again, and never the same: there may be no end to that.
        assert server["repeats"]
        assert server["arriving"]
        return
    except StatusError:
        assert server["past_the_end"] != 200
        # An account without a job cannot be told from a route that does not exist.
        assert server["cap"] >= per_page or not count
        return
    assert expected <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("past_the_end", [400, 404])
@pytest.mark.parametrize("first", [0, 1])
def test_error_after_a_short_page_is_the_end(first: int, past_the_end: int) -> None:
    """A server that answers pages past the end with an error has been read to the end."""
    server = HistoryServer([entry(n) for n in range(7)], first, cap=3, past_the_end=past_the_end)
    assert len(list(client_of(server).jobs.history())) == 7
    assert server.pages[0] == 0


def test_error_after_a_full_page_is_not_the_end() -> None:
    """A limit on how deep pages may go is not taken for the end of the history."""
    server = HistoryServer([entry(n) for n in range(6)], past_the_end=404)
    with pytest.raises(NotFoundError):
        list(client_of(server).jobs.history(per_page=3))


@pytest.mark.parametrize("first", [0, 1])
def test_one_shifted_page_is_not_the_end(first: int) -> None:
    """Jobs that arrive between two requests can make a page a repeat; the walk goes on."""
    server = HistoryServer([entry(n) for n in range(9)], first, cap=3)
    walk = client_of(server).jobs.history()
    found = [next(walk), next(walk), next(walk)]
    server.jobs[:0] = [entry(100 + n) for n in range(3)]
    found += walk
    assert {f"job-{n:04}" for n in range(9)} <= {job.job_identifier for job in found}


def test_server_that_ignores_the_page_number() -> None:
    """A walk that gets the same page again and again ends."""
    page = [entry(n) for n in range(3)]
    client = ModzyClient(
        "https://modzy.test", API_KEY, transport=json_transport(lambda _request: (200, page))
    )
    assert len(list(client.jobs.history())) == 3


def test_too_many_pages() -> None:
    """A history that is cut short says so, after the jobs that were read."""
    server = HistoryServer([entry(n) for n in range(50)], cap=5)
    walk = client_of(server).jobs.history(max_pages=4)
    assert len([next(walk) for _ in range(20)]) == 20
    with pytest.raises(HistoryInconclusiveError):
        next(walk)


@pytest.mark.parametrize(
    "page", [{"content": []}, "none", [entry(1), {"status": "COMPLETED"}], [None], None]
)
def test_unreadable_page(page: object) -> None:
    """A page or an entry that cannot be read is not taken for an empty one."""
    transport = json_transport(lambda _request: (200, page))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    with pytest.raises(UnreadableAnswerError):
        list(client.jobs.history())


@pytest.mark.parametrize("failing", [1, 2, 0])
def test_failing_page(failing: int) -> None:
    """A page that cannot be had makes the history inconclusive, page 0 included."""

    def answer(request: Request) -> tuple[int, object]:
        number = int(dict(request.query)["page"])
        return (503, {}) if number == failing else (200, [entry(1)] if number == 1 else [])

    client = ModzyClient("https://modzy.test", API_KEY, transport=json_transport(answer))
    with pytest.raises(ModzyError):
        list(client.jobs.history())


def test_query() -> None:
    """Filters go out under the names of the API; what was not asked for is left to the server."""
    transport = json_transport(lambda _request: (200, []))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    list(
        client.jobs.history(
            start_date=datetime.fromisoformat("2026-11-23T13:00:00.5+01:00"),
            end_date="2026-11-24",
            model="ed542963de",
            access_key="prefix",
            per_page=50,
        )
    )
    assert [request.path for request in transport.requests] == ["/api/jobs/history"] * 2
    assert dict(transport.requests[0].query) == {
        "startDate": "2026-11-23T12:00:00.500+00:00",
        "endDate": "2026-11-24",
        "status": "ALL",
        "model": "ed542963de",
        "accessKey": "prefix",
        "sort-by": "createdAt",
        "direction": "DESC",
        "per-page": "50",
        "page": "0",
    }


def test_naive_date() -> None:
    """A date without a time zone could miss hours of jobs, so it is refused at once."""
    client = client_of(HistoryServer([]))
    with pytest.raises(ValueError, match="time zone"):
        client.jobs.history(start_date=T0.replace(tzinfo=None))


@pytest.mark.parametrize("limits", [{"per_page": 0}, {"max_pages": 0}])
def test_unusable_limits(limits: dict[str, int]) -> None:
    """A walk that could read nothing is refused, not taken for an empty history."""
    with pytest.raises(ValueError, match="positive"):
        client_of(HistoryServer([entry(1)])).jobs.history(**limits)


def find(listed: list[dict[str, Any]], details: dict[str, tuple[int, object]]) -> list[Job]:
    """Look for the jobs of one item, in a history and in details of single jobs."""
    server = HistoryServer(listed, cap=2)

    def answer(request: Request) -> tuple[int, object]:
        if request.path.endswith("/history"):
            return server.answer(request)
        return details[request.path.rpartition("/")[2]]

    client = ModzyClient("https://modzy.test", API_KEY, transport=json_transport(answer))
    return client.jobs.find_by_input("wanted", T0)


def test_find_by_input_sorts() -> None:
    """All jobs of an item come back, the oldest first: the one to adopt."""
    jobs = [entry(n, item_key="wanted" if n % 2 else None) for n in (5, 1, 4, 3, 2)]
    assert [job.job_identifier for job in find(jobs, {})] == ["job-0001", "job-0003", "job-0005"]


def test_find_by_input_asks_for_details() -> None:
    """A job that the history lists without inputs is looked at before it is ruled out."""
    bare = [{**entry(n), "jobInputs": None} for n in range(4)]
    details: dict[str, tuple[int, object]] = {
        "job-0000": (200, entry(0, item_key="wanted")),
        "job-0001": (200, entry(1)),
        "job-0002": (404, {}),
        "job-0003": (403, {}),
    }
    assert [job.job_identifier for job in find(bare, details)] == ["job-0000"]


def test_find_by_input_fails_with_the_details() -> None:
    """Details that cannot be had now leave the question open."""
    with pytest.raises(ModzyError):
        find([{"jobIdentifier": "bare"}], {"bare": (500, {})})
