"""A timer that reports each run in a queue."""

import json
import os

import azure.functions as func
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

app = func.FunctionApp()


@app.timer_trigger(
    arg_name="timer",
    schedule="%SCHEDULE%",
    run_on_startup=os.environ.get("RUN_ON_STARTUP") == "true",
)
def tick(timer: func.TimerRequest) -> None:
    """Report whether the run is past due."""
    with QueueClient.from_connection_string(
        os.environ["AzureWebJobsStorage"],  # noqa: SIM112 - the host spells it so
        os.environ["REPORTS"],
        message_encode_policy=TextBase64EncodePolicy(),
    ) as queue:
        queue.send_message(json.dumps({"past_due": timer.past_due, "process": os.getpid()}))
