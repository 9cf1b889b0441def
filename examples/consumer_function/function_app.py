"""A queue-triggered consumer that does its work once for each event, however often it comes.

Settings: ``AzureWebJobsStorage`` (the account with the relay's ``JOBS_QUEUE``), ``JOBS_QUEUE``.

The work here is a row of the table ``FinishedJobs``, filed under the event's id and inserted only:
"it exists" means a repeat. Work of another kind (a mail, a call) goes *before* the insert and has
to bear a repetition itself, since a crash in between brings the event again; put after the insert,
a crash in between would lose it.
"""  # noqa: INP001 - an app's folder is not a package

import functools
import json
import logging
import os

import azure.functions as func
from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableClient

logger = logging.getLogger("consumer")
app = func.FunctionApp()


@functools.cache
def _finished_jobs() -> TableClient:
    connection = os.environ["AzureWebJobsStorage"]  # noqa: SIM112 - the host's own spelling
    table = TableClient.from_connection_string(connection, "FinishedJobs")
    try:
        table.create_table()
    except ResourceExistsError:
        logger.debug("the table is there already")
    return table


@app.queue_trigger(arg_name="message", queue_name="%JOBS_QUEUE%", connection="AzureWebJobsStorage")
def job_event(message: func.QueueMessage) -> None:
    """An event of the relay; what cannot be read fails, and ends in the poison queue."""
    event = json.loads(message.get_body())
    if event["type"] != "modzy.job.finished":
        return
    data = event["data"]
    row = {
        # The ledger's partitions spread a day's events, and keep a day one range query.
        "PartitionKey": data["ledger_key"].partition(".")[0],
        "RowKey": event["id"],
        "path": event["subject"],
        "job": data["job_identifier"],
        "job_status": data["job_status"],
        "results": data["result_location"],
        "reason": data["reason"],
    }
    try:
        _finished_jobs().create_entity({k: v for k, v in row.items() if v is not None})
    except ResourceExistsError:
        logger.info("repeat of %s", event["id"])
        return
    logger.info("%s: %s", event["subject"], data["job_status"])
