"""The HTTP API: `POST /api/score`, `GET /api/health`, `GET /api/version`; OpenAPI at `/docs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from python_multipart.exceptions import ParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ..assessment import Assessment
from ..errors import as_text, one_line
from ..versions import __version__
from .files import Scratch, Upload, inside
from .guard import OPEN_PATH, SCORE_PATH
from .limits import MOST_CHARACTERS, Refused
from .service import Request, Service

_MOST_JSON_BYTES = 64_000
_MOST_PARTS = 8
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")
_FIELDS = {
    "prompt": {"type": "string", "description": "the text that it was generated from"},
    "explain": {"type": "boolean", "default": False, "description": "explain the scores, too"},
}


def _form(field: str, **about: str) -> dict[str, Any]:
    """The schema of a body that names a video in this field."""
    properties = {field: {"type": "string", **about}, **_FIELDS}
    return {"schema": {"type": "object", "required": [field], "properties": properties}}


_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": _form("video", format="binary", description="the file"),
        "application/json": _form("path", description="of a file, within the folder of --root"),
    },
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "the row, as in results.jsonl"},
    422: {"description": "the clip can't be assessed: its row, with `error`, or `error` alone"},
    **{
        code: {"description": f"`error`: {what}, in one line"}
        for code, what in {
            400: "what is wrong with the request",
            403: "what may not be read",
            404: "no such file",
            408: "nothing came for too long",
            413: "which limit it exceeds",
            503: "too much is going on",
        }.items()
    },
}


def make_api(service: Service, scratch: Scratch, root: Path | None) -> fastapi.FastAPI:
    """The application with the API's routes, to which the page can be added.

    `root` is the folder that may be read; None for none.
    """
    api = fastapi.FastAPI(
        title="aigveval",
        version=__version__,
        description="How good an AI-generated video is to a viewer, where it fails and why.",
    )

    @api.exception_handler(Refused)
    async def refused(request: fastapi.Request, error: Refused) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    @api.post(SCORE_PATH, openapi_extra={"requestBody": _BODY}, responses=_ANSWERS)
    async def score(request: fastapi.Request) -> Response:
        """Scores one clip: an upload, or a file in the folder of --root."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind == b"multipart/form-data":
            service.check_room()
            async with _uploaded(request, scratch, options.get(b"boundary", b"")) as (upload, form):
                explain = _yes_or_no(form.get("explain", ""))
                return await answer(request, upload.path, upload.name, form.get("prompt"), explain)
        if kind != b"application/json":
            raise Refused("send a form with `video`, or JSON with `path`", 415)
        path, name, prompt, explain = _asked_in_json(await _read(request), root)
        return await answer(request, path, name, prompt, explain)

    async def answer(
        request: fastapi.Request, path: Path, name: str, prompt: str | None, explain: bool
    ) -> Response:
        asked = await run_in_threadpool(service.submit, path, prompt, name=name, explain=explain)
        try:
            row = await _answer_or_hang_up(request, asked)
        finally:
            asked.answer.cancel()
        if row is None:
            return Response(status_code=499)  # nobody reads it
        return as_json(row)

    @api.get(OPEN_PATH)
    async def health() -> dict[str, Any]:
        """Says that the server lives, and how many clips wait."""
        return {"status": "ok", "waiting": service.waiting}

    @api.get("/api/version")
    async def version() -> dict[str, str]:
        """The versions of aigveval and Python, and the model."""
        python = platform.python_version()
        return {"aigveval": __version__, "python": python, "model": service.name}

    return api


def as_json(row: Assessment) -> Response:
    """A row as it stands in results.jsonl; with status 422 where it is an error."""
    text = json.dumps(row.to_dict(), ensure_ascii=False, allow_nan=False)
    return Response(text, 200 if row.error is None else 422, media_type="application/json")


async def _answer_or_hang_up(request: fastapi.Request, asked: Request) -> Assessment | None:
    """The row; None when the client is gone before."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer = asyncio.ensure_future(asyncio.wrap_future(asked.answer))
    gone = asyncio.ensure_future(hang_up())
    both: tuple[asyncio.Future[Any], ...] = (answer, gone)
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer in done else None
    finally:
        for task in both:
            task.cancel()


async def _read(request: fastapi.Request) -> bytes:
    """The whole body, which must be small."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_JSON_BYTES:
            raise Refused(f"more than {_MOST_JSON_BYTES} bytes of JSON", 413)
    return body


def _asked_in_json(body: bytes, root: Path | None) -> tuple[Path, str, str | None, bool]:
    """File, name, prompt, and whether to explain."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON") from None
    if not isinstance(asked, dict):
        raise Refused('the body must be like {"path": "clip.mp4", "prompt": "a dog runs"}')
    if unknown := sorted(set(asked) - {"path", "prompt", "explain"}):
        raise Refused(f"unknown: {one_line(', '.join(unknown), limit=80)}")
    path, prompt, explain = asked.get("path"), asked.get("prompt"), asked.get("explain", False)
    if not isinstance(path, str) or not path:
        raise Refused("`path` must be the name of a file")
    if not isinstance(prompt, (str, type(None))) or not isinstance(explain, bool):
        raise Refused("`prompt` must be text or null, and `explain` true or false")
    return inside(root, path), as_text(path), prompt, explain


def _yes_or_no(text: str) -> bool:
    if text.strip().lower() not in (*_YES, *_NO):
        raise Refused("`explain` must be true or false")
    return text.strip().lower() in _YES


@contextlib.asynccontextmanager
async def _uploaded(
    request: fastapi.Request, scratch: Scratch, boundary: bytes
) -> AsyncIterator[tuple[Upload, dict[str, str]]]:
    """The file and the fields of a form, written down as they come; the file goes at the end."""
    form = _Form(scratch, boundary)
    try:
        try:
            async for piece in request.stream():
                form.parser.write(piece)
            form.parser.finalize()
        except (ParseError, UnicodeDecodeError, ClientDisconnect):
            raise Refused("the form is not whole") from None
        if form.upload is None or not form.ended:
            raise Refused("the form needs a file called `video`")
        form.upload.finish()
        fields = {name: bytes(text).decode("utf-8", "replace") for name, text in form.texts.items()}
        yield form.upload, fields
    finally:
        if form.upload is not None:
            form.upload.remove()


class _Form:
    """A form as its pieces come: the file into a file, and short texts."""

    def __init__(self, scratch: Scratch, boundary: bytes) -> None:
        self.scratch = scratch
        self.upload: Upload | None = None
        self.texts: dict[str, bytearray] = {}
        self.ended = False
        self._parts = 0
        self._header, self._value = b"", b""
        self._place = b""
        self._text: bytearray | None = None
        try:
            self.parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_header,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._add,
                    "on_end": self._end,
                },
            )
        except ParseError:
            raise Refused("the form has no boundary") from None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Refused(f"the form has more than {_MOST_PARTS} parts")
        self._place, self._header, self._value = b"", b"", b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > 4096:
            raise Refused("the form has a header that is too long")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._place = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._place)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._text = None
        if name == "video":
            if self.upload is not None:
                raise Refused("one video a request")
            if b"filename" not in options:
                raise Refused("`video` must be a file")
            self.upload = Upload(self.scratch, options[b"filename"].decode("utf-8", "replace"))
        elif name in ("prompt", "explain") and name not in self.texts:
            self._text = self.texts[name] = bytearray()
        else:
            raise Refused(
                f"unknown or given twice: {one_line(name, limit=80) or 'a nameless part'}"
            )

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            assert self.upload is not None
            self.upload.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > 4 * MOST_CHARACTERS:
            raise Refused(f"a text of more than {MOST_CHARACTERS} characters", 413)

    def _end(self) -> None:
        self.ended = True
