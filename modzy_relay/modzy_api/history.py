"""Reading the whole job history, whichever way the server counts its pages.

Completeness goes before economy: a job overlooked here is a job submitted twice. Servers count
pages from 1 or from 0, may put fewer jobs on a page than asked for, and shift jobs to later pages
while new ones come in. So page 0 is asked for first (400 and 404 mean that there is none), then
the pages from 1 until one is empty, or the same one comes three times in a row, or a page after a
short one is answered with 400 or 404. After a full page those fail, since they may be a limit on
how deep pages go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modzy_relay.modzy_api.api import json_array
from modzy_relay.modzy_api.errors import BadRequestError, HistoryInconclusiveError, NotFoundError
from modzy_relay.modzy_api.records import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modzy_relay.modzy_api.api import Api

Query = tuple[tuple[str, str], ...]

# One repeat may be page 1 of a server that took page 0 for it, or come from new jobs that shift the
# pages by exactly one.
_REPEATS_AT_THE_END = 2


def walk_history(api: Api, query: Query, per_page: int, max_pages: int) -> Iterator[Job]:
    """Every job on every page, each once.

    Args:
        api: Where to ask.
        query: Filters, order and page size; without the page number.
        per_page: The page size asked for.
        max_pages: Pages to read before giving up.

    Raises:
        HistoryInconclusiveError: the history did not end within ``max_pages`` pages.
        UnreadableAnswerError: a page or an entry on it cannot be read.
        ModzyError: a page cannot be had.
    """
    seen: set[str] = set()
    page = _page(api, query, 0, may_be_missing=True)
    yield from _unseen(page, seen)
    repeats = 0
    for number in range(1, max_pages + 1):
        previous = page
        page = _page(api, query, number, may_be_missing=0 < len(previous) < per_page)
        if not page:
            return
        yield from _unseen(page, seen)
        repeats = repeats + 1 if _same_jobs(page, previous) else 0
        if repeats == _REPEATS_AT_THE_END:
            return
    raise HistoryInconclusiveError(
        f"the history has more than {max_pages} pages", request="GET /api/jobs/history"
    )


def _same_jobs(page: list[Job], other: list[Job]) -> bool:
    return [job.job_identifier for job in page] == [job.job_identifier for job in other]


def _page(api: Api, query: Query, number: int, *, may_be_missing: bool) -> list[Job]:
    request = api.request("GET", "jobs", "history", query=(*query, ("page", str(number))))
    try:
        return api.fetch(request, _job_list)
    except (BadRequestError, NotFoundError):
        if may_be_missing:
            return []
        raise


def _job_list(document: object) -> list[Job]:
    return [Job.from_document(entry) for entry in json_array(document)]


def _unseen(page: list[Job], seen: set[str]) -> list[Job]:
    """Jobs that were not seen before; they are from now on."""
    news = []
    for job in page:
        if job.job_identifier not in seen:
            seen.add(job.job_identifier)
            news.append(job)
    return news
