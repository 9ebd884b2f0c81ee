"""HTTP 405 responses (RFC 9110) whose `Allow` header lists every method of a path, not only the first route's."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from api.problems import problem


def install(app: FastAPI, parts: list[APIRouter]) -> None:
    """Register the handler of 405; `parts` are the routers that the application includes."""

    @app.exception_handler(405)
    async def of_method(request: Request, _error: HTTPException) -> JSONResponse:
        routes = [*app.routes, *(route for part in parts for route in part.routes)]
        here = [r for r in routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE]
        allowed = ", ".join(sorted({method for route in here for method in route.methods or ()}))
        return problem(
            405,
            "method_not_allowed",
            f"{request.method} is not what {request.url.path} is for",
            {"Allow": allowed},
            field="method",
            remedy=f"use {allowed}",
            instance=request.url.path,
        )
