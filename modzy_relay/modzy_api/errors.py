"""What can go wrong between this program and Modzy, and what it means for a submission.

ModzyError
    NotSentError              no byte of the request left: name, connection, TLS, proxy, API key
    NoAnswerError             sending had begun, and no whole answer came back
        AnswerTimeoutError    ... within the time allowed
    UnreadableAnswerError     a 2xx answer that is not what the API documents
    StatusError               an answer outside 2xx; the subclasses have an outcome of their own
        BadRequestError       400: something is missing or malformed
        UnauthorizedError     401: the API key is missing, misspelled or no longer valid
        ForbiddenError        403: the API key lacks a role, or a quota is used up
        NotFoundError         404: unknown model, version or job
        TooLargeError         413: the request is larger than the server takes
        UnprocessableError    422: understood, and not acceptable
        ThrottledError        429: too many requests
        UnavailableError      503: the service cannot take requests now
    ForeignLinkError          a result link leads away from the API; it was not followed
    HistoryInconclusiveError  the job history could not be read to its end

Each class carries its ``outcome``; this module is the only place that decides it. The statuses
are those of docs.modzy.com ("Status codes") and of the gateways in front of it (RFC 9110).
"""

from __future__ import annotations

import enum
import http
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar


class Outcome(enum.Enum):
    """What became of a request that has an effect, such as submitting a job."""

    NOT_ACCEPTED = "not accepted"  # certainly without effect; the same request may be sent again
    REFUSED = "refused"  # certainly without effect, and sending it again will not help
    UNKNOWN = "unknown"  # it may have taken effect: look before sending it again


class ModzyError(Exception):
    """Base of everything that the client raises about Modzy.

    Attributes:
        outcome: What became of the request that failed.
        message: The fault in one line: the server's own words if it sent any. Never a secret.
        request: Method and path, such as ``POST /api/jobs``.
        status: HTTP status of the answer, if there was one.
        retry_after: Seconds that the server asks to wait, if it does.
    """

    outcome: ClassVar[Outcome] = Outcome.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        request: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.request = request
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        status = f"{self.status} " if self.status is not None else ""
        pause = f" (retry after {self.retry_after:g} s)" if self.retry_after is not None else ""
        where = f"{self.request}: " if self.request else ""
        return f"{where}{status}{self.message}{pause}"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.message!r}, request={self.request!r},"
            f" status={self.status!r}, retry_after={self.retry_after!r},"
            f" outcome={self.outcome.name})"
        )


class NotSentError(ModzyError):
    """No byte of the request left: name, connection, TLS, proxy or API key failed."""

    outcome = Outcome.NOT_ACCEPTED


class NoAnswerError(ModzyError):
    """Sending had begun, and no whole answer came back."""


class AnswerTimeoutError(NoAnswerError):
    """Sending had begun, and no whole answer came back in time."""


class UnreadableAnswerError(ModzyError):
    """A 2xx answer that is not what the API documents."""


class StatusError(ModzyError):
    """An answer outside 2xx; redirects too, which are never followed."""


class BadRequestError(StatusError):
    """400: something is missing or malformed."""

    outcome = Outcome.REFUSED


class UnauthorizedError(StatusError):
    """401: the API key is missing, misspelled or no longer valid."""

    outcome = Outcome.NOT_ACCEPTED


class ForbiddenError(StatusError):
    """403: the API key lacks a role, or a quota is used up."""

    outcome = Outcome.NOT_ACCEPTED


class NotFoundError(StatusError):
    """404: unknown model, version or job."""

    outcome = Outcome.REFUSED


class TooLargeError(StatusError):
    """413: the request is larger than the server takes."""

    outcome = Outcome.REFUSED


class UnprocessableError(StatusError):
    """422: understood, and not acceptable."""

    outcome = Outcome.REFUSED


class ThrottledError(StatusError):
    """429: too many requests."""

    outcome = Outcome.NOT_ACCEPTED


class UnavailableError(StatusError):
    """503: the service cannot take requests now."""

    outcome = Outcome.NOT_ACCEPTED


class ForeignLinkError(ModzyError):
    """A result link leads away from the API; it was not followed."""

    outcome = Outcome.NOT_ACCEPTED


class HistoryInconclusiveError(ModzyError):
    """The job history could not be read to its end, so what it lacks proves nothing."""


_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    413: TooLargeError,
    422: UnprocessableError,
    429: ThrottledError,
    503: UnavailableError,
}


def status_error(
    status: int, message: str | None, *, request: str, retry_after: float | None = None
) -> StatusError:
    """The error for an answer with this status.

    Args:
        status: Any HTTP status outside 2xx.
        message: The server's explanation, free of secrets; None for the status's usual name.
        request: Method and path.
        retry_after: Seconds that the server asks to wait.
    """
    kind = _BY_STATUS.get(status, StatusError)
    text = message or _phrase(status)
    return kind(text, request=request, status=status, retry_after=retry_after)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


# The length limit keeps a hostile number from becoming an infinite or unprintable delay.
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, 10.2.3); None if it says nothing.

    Args:
        value: ``120`` or ``Fri, 31 Dec 1999 23:59:59 GMT``.
        now: Aware time that a date is compared with. A date in the past means 0.
    """
    text = (value or "").strip()
    if _DELTA_SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        # "-0000" says that the time is UTC, of a sender whose own zone is unknown (RFC 5322).
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
