"""What the host answers over HTTP: functions, the blob webhook, and two administrator calls.

After the host's ``WebScriptHostHttpRoutesManager``, ``AuthenticationLevelHandler``, ``HttpBinding``
and ``FunctionsController``. A method that no function of a route takes is a 404, as the method is
part of what the host's router matches.
"""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from http.cookies import Morsel, SimpleCookie
from typing import TYPE_CHECKING, Any

from sandbox.host.blob_execution import blob_input
from sandbox.host.event_grid import WEBHOOK_PATH, BlobWebhook
from sandbox.host.functions import BlobFunction, HttpFunction, QueueFunction, TimerFunction
from sandbox.host.http_messages import HttpRequest, HttpResponse, json_response
from sandbox.host.keys import KeyLevel
from sandbox.host.logs import host_log
from sandbox.host.protos import RpcHttp, RpcHttpCookie, TypedData
from sandbox.host.timers import timer_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.host.functions import Function, FunctionIndex
    from sandbox.host.invoker import Invoker
    from sandbox.host.keys import AppKeys

_ADMIN_FUNCTIONS = "/admin/functions/"
_ADMIN_STATUS = "/admin/host/status"
_TEXT = "text/plain; charset=utf-8"
_NEEDED = {
    "anonymous": KeyLevel.NONE,
    "function": KeyLevel.FUNCTION,
    "admin": KeyLevel.ADMIN,
}


class HttpApp:
    """Routes, checks keys, and runs functions.

    Args:
        index: the functions.
        keys: the app's keys.
        invoker: runs functions.
        webhook: answers blob events.
        host_id: shown in the status.
    """

    def __init__(
        self,
        index: FunctionIndex,
        keys: AppKeys,
        invoker: Invoker,
        webhook: BlobWebhook,
        host_id: str,
    ) -> None:
        self._index = index
        self._keys = keys
        self._invoker = invoker
        self._webhook = webhook
        self._host_id = host_id
        self._routes = sorted(index.http, key=lambda function: function.route.rank)
        self._background: set[asyncio.Task[object]] = set()

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer one request."""
        if request.path == WEBHOOK_PATH:
            return await self._answer_webhook(request)
        if request.path.startswith("/admin/"):
            return self._answer_admin(request)
        for function in self._routes:
            parameters = function.route.match(request.path)
            if parameters is not None and request.method in (function.methods or {request.method}):
                return await self._answer_function(function, request, parameters)
        return HttpResponse(404)

    async def _answer_webhook(self, request: HttpRequest) -> HttpResponse:
        level = self._keys.level(_key(request))
        if level is KeyLevel.NONE:
            return HttpResponse(401)
        if level < KeyLevel.SYSTEM:
            return HttpResponse(403)
        return await self._webhook.answer(request)

    def _answer_admin(self, request: HttpRequest) -> HttpResponse:
        if self._keys.level(_key(request)) is not KeyLevel.ADMIN:
            return HttpResponse(401)
        if request.path == _ADMIN_STATUS and request.method == "GET":
            errors = [f"{name}: {text}" for name, text in self._index.errors.items()]
            return json_response(200, {"id": self._host_id, "state": "Running", "errors": errors})
        if request.path.startswith(_ADMIN_FUNCTIONS) and request.method == "POST":
            return self._run_by_hand(request)
        return HttpResponse(404)

    def _run_by_hand(self, request: HttpRequest) -> HttpResponse:
        name = request.path.removeprefix(_ADMIN_FUNCTIONS).lower()
        function = next((f for f in self._index.all() if f.name.lower() == name), None)
        if function is None:
            return HttpResponse(404)
        try:
            content = json.loads(request.body or b"{}")
            text = str(content.get("input") or "")
            value, metadata = _manual_input(function, text, request)
        except (ValueError, AttributeError):
            return HttpResponse(400)
        task = asyncio.create_task(self._invoker.invoke(function, "by hand", value, metadata))
        self._background.add(task)  # the event loop itself keeps no reference to a running task
        task.add_done_callback(self._background.discard)
        return HttpResponse(202)

    async def _answer_function(
        self, function: HttpFunction, request: HttpRequest, parameters: Mapping[str, str]
    ) -> HttpResponse:
        level = self._keys.level(_key(request), function.name)
        if not function.enabled and level is not KeyLevel.ADMIN:
            return HttpResponse(404)
        if level < _NEEDED[function.level]:
            return HttpResponse(401)
        value = _http_input(request, parameters)
        result = await self._invoker.invoke(function, f"{request.method} {request.path}", value, {})
        if result.error is not None:
            return HttpResponse(500)
        return _to_response(function, result.value)


def _key(request: HttpRequest) -> str | None:
    """The presented key: the header wins over the query."""
    return request.headers.get("x-functions-key") or request.query.get("code")


def _http_input(request: HttpRequest, parameters: Mapping[str, str]) -> TypedData:
    return TypedData(
        http=RpcHttp(
            method=request.method,
            url=request.url,
            headers=request.headers,
            params=dict(parameters),
            query=request.query,
            body=TypedData(bytes=request.body) if request.body else TypedData(),
        )
    )


def _manual_input(
    function: Function, text: str, request: HttpRequest
) -> tuple[TypedData, dict[str, TypedData]]:
    """The trigger value of a run by hand; a blob is given as ``container/name``.

    Raises:
        ValueError: the text is no input for this kind of function.
    """
    match function:
        case QueueFunction():
            return TypedData(string=text), {"QueueTrigger": TypedData(string=text)}
        case BlobFunction():
            container, _, name = text.partition("/")
            if not name:
                raise ValueError("a blob is given as container/name")
            return blob_input(function, container, name)
        case TimerFunction():
            return timer_input(None, past_due=False), {}
        case HttpFunction():
            body = TypedData(bytes=text.encode()) if text else TypedData()
            http = RpcHttp(
                method="POST", url=request.url, headers={}, params={}, query={}, body=body
            )
            return TypedData(http=http), {}
        case _:
            raise TypeError(f"no input for {type(function).__name__}")


def _to_response(function: HttpFunction, value: TypedData | None) -> HttpResponse:
    kind = value.WhichOneof("data") if value is not None else None
    data: Any = getattr(value, kind) if kind is not None else None
    if kind == "http":
        cookies = tuple(_cookie_text(cookie) for cookie in data.cookies or ())
        return HttpResponse(int(data.status_code), data.headers, data.body.bytes, cookies)
    if kind == "string":
        return _text_response(data)
    host_log.error("%s returned what is no HTTP response", function.name)
    return HttpResponse(500)


def _text_response(text: str) -> HttpResponse:
    """A plain text, or a response description: a JSON object with a "body"."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or "body" not in content:
        return HttpResponse(200, {"content-type": _TEXT}, text.encode())
    body = content["body"]
    status = content.get("statusCode") or content.get("status") or 200
    if isinstance(body, str):
        response = HttpResponse(int(status), {"content-type": _TEXT}, body.encode())
    else:
        response = json_response(int(status), body)
    response.headers.update(content.get("headers") or {})
    return response


def _cookie_text(cookie: RpcHttpCookie) -> str:
    morsel: Morsel[str] = SimpleCookie({cookie.name: cookie.value})[cookie.name]
    for attribute in ("domain", "path"):
        if getattr(cookie, attribute) is not None:
            morsel[attribute] = getattr(cookie, attribute).value
    if cookie.max_age is not None:
        morsel["max-age"] = str(int(cookie.max_age.value))
    if cookie.expires is not None:
        morsel["expires"] = formatdate(cookie.expires.value.seconds, usegmt=True)
    morsel["secure"] = cookie.secure is not None and cookie.secure.value
    morsel["httponly"] = cookie.http_only is not None and cookie.http_only.value
    if cookie.same_site.name == "ExplicitNone":
        morsel["samesite"] = "None"
    elif cookie.same_site.name != "None":
        morsel["samesite"] = cookie.same_site.name
    return morsel.OutputString()
