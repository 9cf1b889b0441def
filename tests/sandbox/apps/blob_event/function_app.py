"""A blob trigger of the Event Grid source that reports what it saw in a queue."""

import json
import os

import azure.functions as func
import azurefunctions.extensions.bindings.blob as blob
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

app = func.FunctionApp()


@app.blob_trigger(
    arg_name="client",
    path="%WATCHED%/in/{name}",
    connection="UploadStorage",
    source=func.BlobSource.EVENT_GRID,
)
def report(client: blob.BlobClient) -> None:
    """Send name and size of the blob to the queue."""
    size = client.get_blob_properties().size
    with QueueClient.from_connection_string(
        os.environ["AzureWebJobsStorage"],  # noqa: SIM112 - the host spells it so
        os.environ["REPORTS"],
        message_encode_policy=TextBase64EncodePolicy(),
    ) as queue:
        queue.send_message(json.dumps({"blob": client.blob_name, "size": size}))
