"""FastAPI application of a deployment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from api import (
    allowed_methods,
    catalogue,
    contents,
    estimates,
    events,
    job_changes,
    jobs,
    metrics,
    openapi,
    page_files,
    problems,
    reference,
    samples,
    sessions,
    slices,
    submission,
    uploads,
)
from api.middleware import Authentication, RequestLog
from api.models import Health, Ready
from api.proxies import Proxies
from api.representation import represent
from api.result_files import KEPT
from api.service import Service
from api.volumes import VolumeCache
from api.web_security import SameSite, SecurityHeaders
from recon.formats import sandbox
from workers import presence, reconcile, retention, tasks
from workers.background import Background
from workers.reconcile import Reconciler
from workers.settings import Settings
from workers.webhooks import Webhooks

log = logging.getLogger("recon.api")
SWEEP_EVERY_S = 600.0
WEBHOOKS_EVERY_S = 1.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the API of a deployment; settings come from the environment unless given."""
    chosen = settings or Settings()
    service = Service.of(chosen)
    webhooks = Webhooks(service.index, chosen, lambda record: represent(service, record).model_dump(mode="json"))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        background = [
            Background("reconciling", Reconciler(chosen, service.index).work, reconcile.EVERY_S),
            Background("sweeping", lambda: retention.sweep(service.index, chosen), SWEEP_EVERY_S),
            Background("webhooks", webhooks.deliver_due, WEBHOOKS_EVERY_S),
        ]
        async with AsyncExitStack() as stack:
            sandbox.shared.start()
            stack.push_async_callback(run_in_threadpool, sandbox.shared.close)
            stack.push_async_callback(run_in_threadpool, webhooks.close)
            for work in background:
                work.start()
                stack.push_async_callback(run_in_threadpool, work.stop)
            yield

    app = FastAPI(
        title="Diffusion Recon",
        version="1",
        lifespan=lifespan,
        responses=problems.responses("default"),
        docs_url=None,  # those come from elsewhere, and run scripts that the policy forbids: see `api.reference`
        redoc_url=None,
    )
    app.state.settings, app.state.store, app.state.service = chosen, service.store, service
    app.state.pictures = slices.Pictures(slices.result_folder, VolumeCache(chosen.picture_bytes), KEPT)
    problems.install(app)
    openapi.install(app)
    reference.install(app)
    page_files.install(app)
    # For the document: `Authentication` has let the request in already.
    key = [Security(HTTPBearer(scheme_name="key", auto_error=False))] if chosen.keys is not None else []
    parts = [
        part.router
        for part in (
            catalogue,
            samples,
            uploads,
            contents,
            submission,
            estimates,
            jobs,
            slices,
            events,
            job_changes,
            sessions,
        )
    ]
    for part in parts:
        app.include_router(part, responses=problems.responses(401, 422), dependencies=key)
    app.include_router(metrics.router)
    allowed_methods.install(app, [*parts, metrics.router])

    @app.get("/healthz", tags=["service"])
    @app.head("/healthz", include_in_schema=False)
    async def healthz() -> Health:
        """Liveness: the process answers."""
        return Health(status="ok")

    @app.get("/readyz", tags=["service"], response_model=Ready, responses=problems.responses(503))
    @app.head("/readyz", include_in_schema=False, response_model=Ready)
    async def readyz() -> Ready | JSONResponse:
        """Readiness: Redis answers, so jobs can be accepted; and which workers are there to compute them."""
        try:
            waiting = await run_in_threadpool(tasks.waiting, chosen.redis_url)
            there = await run_in_threadpool(presence.count, chosen.redis_url)
        except RedisError as error:
            log.warning("not ready: %s", error)
            return problems.problem(503, "backend_unavailable", "Redis cannot be reached", {"Retry-After": "5"})
        return Ready(status="ready", queued=len(waiting), workers={device: there[device] for device in chosen.devices})

    # From the inside out.
    app.add_middleware(Authentication, service=service)
    app.add_middleware(SameSite, settings=chosen)
    app.add_middleware(Proxies, trusted=chosen.proxies)
    app.add_middleware(RequestLog, service=service)
    app.add_middleware(SecurityHeaders)
    return app
