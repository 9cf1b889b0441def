"""A queue trigger with an output binding."""

import azure.functions as func

app = func.FunctionApp()


@app.queue_trigger(arg_name="message", queue_name="in", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="copy", queue_name="out", connection="AzureWebJobsStorage")
def forward(message: func.QueueMessage, copy: func.Out[str]) -> None:
    """Forward the message."""
    copy.set(message.get_body().decode())
