"""A queue trigger that reports each attempt and fails or waits as the message says."""

import json
import os
import time

import azure.functions as func
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

app = func.FunctionApp()


@app.queue_trigger(arg_name="message", queue_name="%WORK%", connection="AzureWebJobsStorage")
def attempt(message: func.QueueMessage) -> None:
    """Report the attempt; fail the first ``failures`` attempts, run for ``seconds``."""
    order = json.loads(message.get_body())
    with QueueClient.from_connection_string(
        os.environ["AzureWebJobsStorage"],  # noqa: SIM112 - the host spells it so
        os.environ["REPORTS"],
        message_encode_policy=TextBase64EncodePolicy(),
    ) as queue:
        queue.send_message(
            json.dumps(
                {
                    "name": order.get("name"),
                    "id": message.id,
                    "attempt": message.dequeue_count,
                    "process": os.getpid(),
                }
            )
        )
    time.sleep(order.get("seconds", 0))
    if message.dequeue_count <= order.get("failures", 0):
        raise RuntimeError("this attempt fails as ordered")
