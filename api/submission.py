"""Submission of jobs, POST /v1/jobs: on disk and queued before the 202; the same submission twice is one job."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from kombu.exceptions import OperationalError
from starlette.concurrency import run_in_threadpool

from api import bodies, problems, strict_json, waiting
from api.models import Job
from api.openapi import JOB_SPEC_BODY, PREFER_WAIT, STRING, header_parameter, headers
from api.representation import answer
from api.service import Service, key_of, service
from operators.errors import BackendUnavailable, InputError, NotFound, ReconError
from recon.formats import sandbox
from recon.planning import plan
from recon.planning.plan import Plan
from recon.spec.job import LONGEST_JOB_NAME, JobSpec
from workers import addresses, idempotency, retention, tasks
from workers.keys import Key
from workers.store import Record

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Job,
    responses={
        200: {"model": Job, "description": "The job has ended within the time to wait (`Prefer: wait`)."},
        202: {"headers": headers(STRING, "Location", "ETag")},
        **problems.responses(404, 409, 410, 413, 415, 429, 503, 507),
    },
    openapi_extra={
        "parameters": [
            header_parameter(
                idempotency.HEADER,
                "Sent again with the same body, the answer is the same job.",
                minLength=1,
                maxLength=255,
            ),
            PREFER_WAIT,
        ],
        "requestBody": JOB_SPEC_BODY,
    },
)
async def submit(request: Request) -> Response:
    """Submit a job. When the 202 is sent, the job is on disk and queued."""
    found, key = service(request), key_of(request)
    body = await bodies.small_json(request)
    once = request.headers.get(idempotency.HEADER)
    record = await run_in_threadpool(accept, found, key, body, once)
    seconds = waiting.preferred(request)
    if not seconds:
        return await run_in_threadpool(answer, found, record, 202)
    try:
        record = await waiting.until(request, lambda: found.job(key, record.id), lambda r: r.terminal, seconds)
    except BackendUnavailable:
        # The server is being stopped. The job was accepted, and that is what the client must know.
        return await run_in_threadpool(answer, found, record, 202)
    status = 200 if record.terminal else 202
    return await run_in_threadpool(answer, found, record, status, waiting.applied(seconds))


def accept(found: Service, key: Key | None, body: bytes, once: str | None) -> Record:
    """Make the job, or find the one that the same request made before."""
    if once is None:
        return _make(found, key, body, None)
    owner = key.name if key else None
    with idempotency.claim(found.store.root / "idempotency", owner, once, body) as job_id:
        try:
            return found.job(key, job_id)
        except NotFound:
            return _make(found, key, body, job_id)


def _make(found: Service, key: Key | None, body: bytes, job_id: str | None) -> Record:
    notes: list[str] = []
    spec = JobSpec.parse(strict_json.parse(body), notes=notes)
    _check_webhook(found, spec)
    with found.usage.one_more_job(key), retention.submitting(found.store):
        planned = checked(found, key, spec)
        plan.require_fit(planned)
        name = spec.name or str(found.upload(key, str(spec.input.upload), "input.upload")["name"])[:LONGEST_JOB_NAME]
        owner = key.name if key else None
        record = found.store.create(spec, job_id, owner, planned.seconds, name=name, notes=notes)
    try:
        tasks.enqueue(record.id, record.priority, record.device)
    except OperationalError as error:
        found.store.discard(record.id)
        raise BackendUnavailable(
            "the queue cannot be reached, the job was not accepted", field="redis", remedy="submit again later"
        ) from error
    return record


def checked(found: Service, key: Key | None, spec: JobSpec) -> Plan:
    """Refuse everything that can be refused at submission, with all reasons; return the plan of an accepted job."""
    wrong = list(_unfit(found, key, spec))
    if wrong:
        wrong[0].also = (*wrong[0].also, *wrong[1:])
        raise wrong[0]
    return plan.make(spec, sandbox.shared.check(spec, found.store.job_files(spec)))


def _unfit(found: Service, key: Key | None, spec: JobSpec) -> Iterator[ReconError]:
    """Problems of a job, as far as the specification and the server's settings tell."""
    if spec.device not in found.settings.devices:
        yield InputError(
            f"this server has no workers for {spec.device}",
            field="device",
            remedy=f"choose {' or '.join(found.settings.devices)}, or have the operator set RECON_DEVICES",
        )
    for name, file in spec.files().items():
        if file.upload is None:
            yield InputError(
                f"{file.path!r} is a path, a server reads uploads only",
                field=f"{name}.path",
                remedy="send the file to /v1/uploads and give its id as upload",
            )
            continue
        try:
            found.upload(key, file.upload, f"{name}.upload")
        except ReconError as error:
            yield error
    for name, path in spec.method.paths().items():
        yield InputError(
            f"'{path}' is a path, a server has what is installed only",
            field=f"method.{name}",
            remedy="leave it out or name an installed prior, or run the job with `recon run`",
        )


def _check_webhook(found: Service, spec: JobSpec) -> None:
    if spec.webhook_url is None:
        return
    if found.settings.webhook_secret is None:
        raise InputError(
            "this server sends no webhooks",
            field="webhook_url",
            remedy="leave it out, or have the operator set RECON_WEBHOOK_SECRET",
        )
    try:
        addresses.resolve(spec.webhook_url, addresses.allowed_networks(found.settings.webhook_allow))
    except BackendUnavailable as error:  # a name that nobody knows is the request's mistake
        raise InputError(error.message, field="webhook_url", remedy=error.remedy) from error
