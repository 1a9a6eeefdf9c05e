"""Who may ask: token, host and origin, and how much a request may carry and how slowly.

Pure ASGI in front of everything, the page's own routes included.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ..errors import cause_of
from .files import Scratch
from .limits import MEGABYTE, Limits, Refused

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)

OPEN_PATH = "/api/health"  # says nothing about anybody
SCORE_PATH = "/api/score"
PAGE_UPLOADS = "/gradio_api/upload"
_UPLOADS = (SCORE_PATH, PAGE_UPLOADS)
_COOKIE = "aigveval_app"
_SMALL_BYTES = 4 * MEGABYTE  # of a request that brings no video; the page sends its tables
_FORM_BYTES = MEGABYTE  # what a form may have around the video
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>aigveval</title>
<body style="font:16px system-ui;max-width:24rem;margin:15vh auto;padding:0 1rem">
<form><label>This page needs the token that its server was started with.<br>
<input name="token" type="password" autofocus required
 style="font:inherit;width:100%;margin:.5rem 0"></label>
<button style="font:inherit">Open</button></form>"""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through to an ASGI application, or answers them itself.

    Args:
        limits: of uploads, and how long a client may send nothing.
        token: that each request must bring, as `Authorization: Bearer ...`, in a cookie, or once
            as `?token=` of the page, which sets the cookie; None for everybody.
        own_machine: whether the name that was asked for must be one of this machine, so that a web
            page can't reach the server under a name of its own (DNS rebinding).
    """

    def __init__(
        self,
        app: Any,
        *,
        limits: Limits,
        scratch: Scratch,
        token: str | None = None,
        own_machine: bool = True,
    ) -> None:
        self.app = app
        self.limits = limits
        self.scratch = scratch
        self.token = None if token is None else token.encode()
        self.own_machine = own_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, send)
            return
        started = False
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def watched(message: dict[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *self._headers()]
                if has_body and not bounded.whole:  # else the rest of it would be read for nothing
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        bounded = _Bounded(receive, self._most_bytes(scope), self.limits.idle_seconds)
        if scope["path"].rstrip("/") == PAGE_UPLOADS:
            bounded.count = self.scratch.count
        try:
            if scope["method"] == "POST" and scope["path"].rstrip("/") not in _UPLOADS:
                await bounded.read_small()
                self._check_paths(bounded.body)
            await self.app(scope, bounded, watched)
        except Exception as error:
            # What a body that was cut off comes to is up to its reader.
            refused = error if isinstance(error, Refused) else bounded.refused
            if isinstance(error, ClientDisconnect):
                refused = Refused("the request is not whole")
            if refused is None:
                if os.environ.get("AIGVEVAL_DEBUG"):
                    raise
                _log.warning("a request failed: %s", cause_of(error))
                refused = Refused("the server failed at this request", 500)
            if not started:
                await _said(str(refused), refused.status)(scope, receive, watched)
        finally:
            self.scratch.count(-bounded.counted)  # a file that is whole counts by its size

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self.own_machine and not is_loopback(_name_of(host)):
            return _said("asked for under a name that isn't this machine's", 403)
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return _said("asked by another site", 403)
        if self.token is not None and scope["path"] != OPEN_PATH:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
            if (
                given
                and scope["method"] == "GET"
                and hmac.compare_digest(given[0].encode(), self.token)
            ):
                return self._with_cookie(scope)
            if not self._knows_token(headers):
                if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                    return HTMLResponse(_ASK, 401)
                return _said("a token is needed: Authorization: Bearer TOKEN", 401)
        try:
            announced = int(headers.get("content-length") or 0)
        except ValueError:
            return _said("content-length is no number", 400)
        try:
            if announced > self._most_bytes(scope):
                most = self._most_bytes(scope) / MEGABYTE
                raise Refused(f"the request is larger than {most:g} MB, the limit here", 413)
            if scope["path"].rstrip("/") in _UPLOADS:
                self.scratch.check_room(announced)
        except Refused as refused:
            return _said(str(refused), refused.status)
        return None

    def _most_bytes(self, scope: Scope) -> int:
        path = scope["path"].rstrip("/")
        if path == PAGE_UPLOADS:  # of several files; Gradio holds each to its limit
            return self.limits.folder_bytes
        return self.limits.size_bytes + _FORM_BYTES if path == SCORE_PATH else _SMALL_BYTES

    def _check_paths(self, body: bytes) -> None:
        """Raises `Refused` when a request of the page names a file that isn't one of its uploads.

        Gradio would refuse paths, but fetch what lies at an address.
        """
        # A name may be written with escapes, and JSON in UTF-16 or UTF-32, which have zero bytes.
        if not any(mark in body for mark in (b'"path"', b"\\u", b"\0")):
            return
        try:
            found = [json.loads(body)]
        except (ValueError, RecursionError):
            raise Refused("the body is not JSON") from None
        while found:
            value = found.pop()
            if isinstance(value, dict):
                found += value.values()
                path = value.get("path")
                if isinstance(path, str) and not self.scratch.has_upload(path):
                    raise Refused("only uploads of this page can be named here", 403)
            elif isinstance(value, list):
                found += value

    def _knows_token(self, headers: Headers) -> bool:
        assert self.token is not None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode("latin-1"), self.token)
        cookies = headers.get("cookie", "").split(";")
        found = (one.strip().removeprefix(f"{_COOKIE}=") for one in cookies if _COOKIE in one)
        return any(hmac.compare_digest(one.encode(), self._pass().encode()) for one in found)

    def _pass(self) -> str:
        """What the cookie holds in place of the token."""
        assert self.token is not None
        return hmac.new(self.token, b"aigveval app", hashlib.sha256).hexdigest()

    def _with_cookie(self, scope: Scope) -> Response:
        rest = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        rest.pop("token")
        query = urlencode(rest, doseq=True)
        # not with two slashes, which would lead to another host
        place = "/" + scope["path"].lstrip("/") + (f"?{query}" if query else "")
        answer = RedirectResponse(place, 303)
        secure = scope.get("scheme") == "https"
        answer.set_cookie(_COOKIE, self._pass(), httponly=True, samesite="lax", secure=secure)
        return answer

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
        if self.own_machine or self.token is not None:
            found.append((b"content-security-policy", b"frame-ancestors 'self'"))
        return found


class _Bounded:
    """Reads a request's body no further than it may go, and no slower."""

    def __init__(self, receive: Receive, most_bytes: int, idle_seconds: float) -> None:
        self.receive = receive
        self.left = self.most_bytes = most_bytes
        self.idle_seconds = idle_seconds
        self.refused: Refused | None = None
        self.whole = False
        self.count: Callable[[int], None] | None = None
        self.counted = 0
        self.body = b""
        self.again = False

    async def read_small(self) -> None:
        """Reads the whole body into `body`; it is given once more to whoever asks."""
        while not self.whole:
            message = await self()
            self.body += message.get("body", b"")
            if message["type"] == "http.disconnect":
                return
        self.again = True

    async def __call__(self) -> dict[str, Any]:
        if self.again:
            self.again = False
            return {"type": "http.request", "body": self.body, "more_body": False}
        if self.whole:  # what may still come is the end of the connection
            return await self.receive()
        if self.refused is not None:
            raise self.refused
        try:
            message = await asyncio.wait_for(self.receive(), self.idle_seconds)
        except TimeoutError:
            most = f"{self.idle_seconds:g} seconds"
            self.refused = Refused(f"nothing came for {most}, the limit here", 408)
            raise self.refused from None
        size = len(message.get("body", b""))
        self.left -= size
        self.whole = not message.get("more_body", False)
        if self.count is not None:
            self.count(size)
            self.counted += size
        if self.left < 0:
            most = f"{self.most_bytes / MEGABYTE:g} MB"
            self.refused = Refused(f"the request is larger than {most}, the limit here", 413)
            raise self.refused
        return message


def _name_of(host: str) -> str:
    """The name of `name:port`, `[::1]:port`."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _said(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status, headers={"connection": "close"})
