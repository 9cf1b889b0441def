"""One function whose queue is named by a setting that does not exist, and a sound one."""

import azure.functions as func

app = func.FunctionApp()


@app.queue_trigger(arg_name="message", queue_name="%MISSING%", connection="AzureWebJobsStorage")
def lost(message: func.QueueMessage) -> None:
    """Never run."""


@app.route(auth_level=func.AuthLevel.ANONYMOUS)
def sound(req: func.HttpRequest) -> str:
    """Answer."""
    return "sound"
