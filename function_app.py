"""The function app: triggers only. Each decodes its input and calls one use case."""

import json
import logging
import os
from typing import TYPE_CHECKING

import azure.functions as func
import azurefunctions.extensions.bindings.blob as blob

from modzy_relay import http_api
from modzy_relay.messages import decode_reminder
from modzy_relay.settings import relay_connection_name, trigger_source

if TYPE_CHECKING:
    from modzy_relay.wiring import Services

# The Azure SDKs log every request at INFO; the relay logs what came of it.
logging.getLogger("azure").setLevel(logging.WARNING)

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.blob_trigger(
    arg_name="client",
    path="%UPLOAD_CONTAINER%/{name}",
    connection="UploadStorage",
    source=func.BlobSource(trigger_source(os.environ)),
)
def submit_upload(client: blob.BlobClient) -> None:
    """A blob was written. Only its name is taken from the client; its content is not read."""
    _services().relay.submit_upload(client.blob_name)


@app.queue_trigger(
    arg_name="message",
    queue_name="%DUE_QUEUE%",
    connection=relay_connection_name(os.environ),
)
def advance_submission(message: func.QueueMessage) -> None:
    """A submission is due for its next step."""
    _services().relay.advance(decode_reminder(message.get_body()))


@app.timer_trigger(arg_name="timer", schedule="%SWEEP_SCHEDULE%")
def sweep(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding names it
    """Find uploads without a row and rows that are overdue."""
    _services().sweeper.run()


@app.route(route="modzy/job-completed", methods=["POST"], trigger_arg_name="request")
def job_completed(request: func.HttpRequest) -> func.HttpResponse:
    """Modzy's webhook."""
    return _response(http_api.job_completed(_services().follower, request.get_body()))


@app.route(route="submissions", methods=["GET"], trigger_arg_name="request")
def get_submission(request: func.HttpRequest) -> func.HttpResponse:
    """Where is my file?"""
    return _response(http_api.get_submission(_services().lookup, request.params))


def _services() -> "Services":
    # Imported on first use: the host registers functions only if this file can be imported, in
    # little time, and nothing of this is needed for that.
    from modzy_relay.wiring import services

    return services()


def _response(answer: http_api.Answer) -> func.HttpResponse:
    status, body = answer
    return func.HttpResponse(
        json.dumps(body, ensure_ascii=False), status_code=status, mimetype="application/json"
    )
