"""The page and what it asks: `GET /`, its script and style, `GET /about`, and `POST /look` with a file as the body.

Nothing comes from another host, and nothing is kept: a file lies in a folder of its own while it is looked at. Networks
look at one file at a time, others wait; too many are sent away. What a page of another host sends is refused, as is a
name that is not this server's, by which such a page could read the answers.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from segda.data.files import photos, video
from segda.errors import SegdaError
from segda.ground.memory import lacks_memory
from segda.ground.speaking import complain
from segda.serving.viewer import MEGAPIXELS, Viewer, about, shown

WAITING = 4
"""Files that may wait while one is looked at."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PARTS = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"),
         "/page.js": ("page.js", "text/javascript")}  # fmt: skip


class Refused(Exception):
    """A request that is not answered: an HTTP status, and why in words for who looks at the page."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status, self.why = status, why


def app_of(viewers: Sequence[Viewer], most_bytes: int, hosts: Sequence[str]) -> FastAPI:
    """hosts: the names under which the page is asked for; with "*" any."""
    app = FastAPI(title="segda", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])
    turn, waiting = asyncio.Lock(), 0
    limits = {"bytes": most_bytes, "megapixels": MEGAPIXELS}

    @app.middleware("http")
    async def with_headers(request: Request, call: Any) -> Response:
        answer = await call(request)
        answer.headers.update(HEADERS)
        return answer

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"error": error.why}, error.status)

    for place, (name, kind) in PARTS.items():
        content = (files("segda.serving") / name).read_bytes()
        app.add_api_route(place, lambda content=content, kind=kind: Response(content, media_type=kind), methods=["GET"])

    @app.get("/about")
    def told() -> JSONResponse:
        return JSONResponse(about(viewers) | {"limits": limits})

    @app.post("/look")
    async def look(request: Request, name: str = "the file") -> JSONResponse:
        nonlocal waiting
        refuse_foreign(request)
        suffix = Path(name).suffix.lower()
        if suffix not in (*photos.SUFFIXES, *video.SUFFIXES):
            raise Refused(415, f"{name}: give an image ({photos.KINDS}) or a video ({', '.join(video.SUFFIXES)})")
        content = await received(request, name, most_bytes)
        if waiting > WAITING:
            raise Refused(503, "many files are waiting; try again in a minute")
        waiting += 1
        try:
            async with turn:
                frames = await run_in_threadpool(looked_at, content, suffix, name, viewers)
        finally:
            waiting -= 1
        return JSONResponse({"name": name, "frames": frames})

    return app


def refuse_foreign(request: Request) -> None:
    """A browser says from whose page a request comes."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refused(403, "this page takes files from itself alone")


async def received(request: Request, name: str, most: int) -> bytes:
    """The body; no more of it is read than may be."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise Refused(413, f"{name}: is more than {most / 1e6:.0f} MB; segda predict takes files of any size")
    if not content:
        raise Refused(422, f"{name}: the file is empty")
    return bytes(content)


def looked_at(content: bytes, suffix: str, name: str, viewers: Sequence[Viewer]) -> list[dict[str, Any]]:
    with TemporaryDirectory(prefix="segda-serve-") as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        try:
            return shown(path, viewers)
        except SegdaError as error:
            raise Refused(422, str(error).replace(str(path), name)) from error
        # Every Exception: whoever looks at the page is told that it failed, and whoever runs it is shown where.
        except Exception as error:
            if lacks_memory(error):
                raise Refused(503, f"{name}: too large for this machine's memory; make it smaller") from error
            complain(f"{name}: {traceback.format_exc()}")
            raise Refused(500, f"{name}: the server met a fault of its own; its terminal shows where") from error
