"""The page that the service serves at its root: files of `api/page`, which a browser asks about before each use."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "page"
PATH = "/page"


class _Files(StaticFiles):
    """Files with entity tags; browsers keep them and ask each time, so that an update is seen at once."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with a file, or with 304 if the client has it."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def install(app: FastAPI, name: str = "index.html") -> None:
    """Add a page at ``/`` and its files below ``/page``; they need no key, since they hold no data."""
    files = _Files(directory=FOLDER)

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return await files.get_response(name, request.scope)

    @app.get(PATH + "/{path:path}", include_in_schema=False)
    @app.head(PATH + "/{path:path}", include_in_schema=False)
    async def file(request: Request, path: str) -> Response:
        return await files.get_response(path, request.scope)


def holds(path: str) -> bool:
    """Whether a path of the service belongs to the page."""
    return path == "/" or path.startswith(PATH + "/")
