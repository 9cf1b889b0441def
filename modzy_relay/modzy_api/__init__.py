"""Client for the part of Modzy's REST API that this project needs.

Example::

    with ModzyClient("https://modzy.example.com", "prefix.secret") as client:
        job = client.jobs.submit_azureblob(
            "ed542963de",
            "0.0.27",
            {"my-input": {"input.txt": {"container": "uploads", "filePath": "some_file.txt"}}},
            "AZURE_STORAGE_ACCOUNT",
            "AZURE_STORAGE_ACCOUNT_KEY",
        )

Modzy has no idempotency key and a job costs money, so nothing is ever sent twice here, and every
error says by its ``outcome`` whether the request may have taken effect. The tree of errors is in
:mod:`modzy_relay.modzy_api.errors`.
"""

from modzy_relay.modzy_api.client import Jobs, Models, ModzyClient, ResultFile, ResultsRoutes
from modzy_relay.modzy_api.errors import (
    AnswerTimeoutError,
    BadRequestError,
    ForbiddenError,
    ForeignLinkError,
    HistoryInconclusiveError,
    ModzyError,
    NoAnswerError,
    NotFoundError,
    NotSentError,
    Outcome,
    StatusError,
    ThrottledError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnprocessableError,
    UnreadableAnswerError,
)
from modzy_relay.modzy_api.records import (
    AccessKey,
    ItemResult,
    Job,
    JobStatus,
    ModelInput,
    ModelRef,
    ModelVersion,
    Results,
    UnreadableRecordError,
    User,
)
from modzy_relay.modzy_api.transport import Answer, HttpTransport, Request, Transport

__all__ = [
    "AccessKey",
    "Answer",
    "AnswerTimeoutError",
    "BadRequestError",
    "ForbiddenError",
    "ForeignLinkError",
    "HistoryInconclusiveError",
    "HttpTransport",
    "ItemResult",
    "Job",
    "JobStatus",
    "Jobs",
    "ModelInput",
    "ModelRef",
    "ModelVersion",
    "Models",
    "ModzyClient",
    "ModzyError",
    "NoAnswerError",
    "NotFoundError",
    "NotSentError",
    "Outcome",
    "Request",
    "ResultFile",
    "Results",
    "ResultsRoutes",
    "StatusError",
    "ThrottledError",
    "TooLargeError",
    "Transport",
    "UnauthorizedError",
    "UnavailableError",
    "UnprocessableError",
    "UnreadableAnswerError",
    "UnreadableRecordError",
    "User",
]
