"""The FastAPI application of a deployment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from api import jobs, problems, uploads
from recon.job import JobSpec
from workers import tasks
from workers.reconcile import Reconciler
from workers.settings import Settings
from workers.store import JobStore

log = logging.getLogger("recon.api")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API of a deployment; settings come from the environment unless given."""
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reconciler = Reconciler(chosen, app.state.store)
        reconciler.start()
        try:
            yield
        finally:
            await run_in_threadpool(reconciler.stop)

    app = FastAPI(title="Diffusion Recon", version="1", lifespan=lifespan)
    app.state.settings, app.state.store = chosen, JobStore(chosen.store)
    problems.install(app)
    app.include_router(uploads.router)
    app.include_router(jobs.router)

    @app.get("/healthz", tags=["service"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    async def readyz(request: Request) -> JSONResponse:
        """Redis answers, so jobs can be accepted."""
        try:
            waiting = await run_in_threadpool(tasks.waiting, request.app.state.settings.redis_url)
        except RedisError as error:
            log.warning("not ready: %s", error)
            return problems.problem(503, "backend_unavailable", "Redis cannot be reached", {"Retry-After": "5"})
        return JSONResponse({"status": "ready", "queued": len(waiting)})

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components.update(spec.pop("$defs", {}))
            components["JobSpec"] = spec
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
