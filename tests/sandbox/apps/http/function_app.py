"""HTTP triggers of every level."""

import json
import logging
import time

import azure.functions as func

app = func.FunctionApp()


@app.route(route="items/{kind:alpha}/{number:int}", methods=["POST"])
def item(req: func.HttpRequest) -> func.HttpResponse:
    """Answer with what arrived."""
    logging.info("the app logs a line")  # noqa: LOG015 - as apps do
    body = {
        "route": dict(req.route_params),
        "query": dict(req.params),
        "header": req.headers.get("X-Sample"),
        "body": req.get_body().decode(),
    }
    return func.HttpResponse(
        json.dumps(body),
        status_code=201,
        headers={"X-Answer": "yes", "Set-Cookie": "flavour=plain; Path=/; HttpOnly"},
        mimetype="application/json",
    )


@app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
def open_to_all(req: func.HttpRequest) -> str:
    """Answer with a plain text."""
    return "hello"


@app.route(route="administer", auth_level=func.AuthLevel.ADMIN)
def administer(req: func.HttpRequest) -> str:
    """Answer administrators."""
    return "done"


@app.route(auth_level=func.AuthLevel.ANONYMOUS)
def fails(req: func.HttpRequest) -> str:
    """Fail."""
    raise RuntimeError("this request fails")


@app.route(auth_level=func.AuthLevel.ANONYMOUS)
def leaves(req: func.HttpRequest) -> str:
    """Try to end the process."""
    raise SystemExit(7)


@app.route(auth_level=func.AuthLevel.ANONYMOUS)
def slow(req: func.HttpRequest) -> str:
    """Take the seconds that the request asks for."""
    time.sleep(float(req.params["seconds"]))
    return "at last"
