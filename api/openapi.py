"""The OpenAPI document: every route with what it answers, the problems among that, and the job specification."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import answers
from recon.spec.files import UPLOAD_ID
from recon.spec.job import JobSpec

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable, for programs."},
        "detail": {"type": "string", "description": "What is wrong, with the value."},
        "field": {"type": "string", "description": "The offending field, header or limit."},
        "remedy": {"type": "string", "description": "What to do."},
        "instance": {"type": "string"},
        "request_id": {"type": "string", "description": "As in the server's log."},
    },
}
MEANINGS = {
    401: "No key, or one that nobody has.",
    404: "It is not here, or belongs to another key.",
    409: "Its state forbids this now.",
    410: "It was here, and has been deleted.",
    413: "Larger than is accepted.",
    416: "There is no such range.",
    422: "The request is wrong; `field` and `remedy` say what to mend.",
    429: "The key has as many unfinished jobs as it may have.",
    503: "Try again after `Retry-After` seconds.",
    507: "The disk, or the key's share of it, is full.",
}
WAIT = ("Prefer", "`wait=SECONDS`: answer when the job has ended, or after so long.")
ASKED: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("post", "/v1/jobs"): [WAIT],
    ("get", "/v1/jobs/{job_id}"): [WAIT, ("If-None-Match", "The `ETag` that the client has; 304 if it still holds.")],
    ("get", "/v1/jobs/{job_id}/results/{name}"): [("Range", "`bytes=FIRST-LAST`: this part only.")],
}
"""Headers that routes look at besides their parameters."""
CHANGING = ("post", "put", "patch", "delete")


def install(app: FastAPI) -> None:
    """Replace the application's document by ours."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(spec.pop("$defs", {}))
    schemas.update(answers.SCHEMAS)
    schemas["JobSpec"], schemas["Problem"] = spec, PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):  # problems take their place
        schemas.pop(name, None)
    _say_that_servers_read_uploads(schemas)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            for name, text in ASKED.get((method, path), []):
                header = {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
                operation.setdefault("parameters", []).append(header)
            answers.describe(method, path, operation["responses"])
            for status in _expected(path, method):
                operation["responses"][str(status)] = _problem(MEANINGS[status])
            operation["responses"]["default"] = _problem("A problem.")
            if path.startswith("/v1/") and app.state.settings.keys is not None:
                operation["security"] = [{"key": []}]
    return schema


def _say_that_servers_read_uploads(schemas: dict[str, Any]) -> None:
    """A file is a path or an upload; over HTTP only the second."""
    for name in ("File", "Input"):
        file = schemas[name]["properties"]
        file["path"] = {"type": "null", "description": "For the command line; a server reads uploads only."}
        file["upload"] = {"type": "string", "pattern": UPLOAD_ID, "description": "Id of an upload."}
        schemas[name]["required"] = ["upload"]


def _expected(path: str, method: str) -> list[int]:
    if not path.startswith("/v1/"):
        return [503] if path == "/readyz" else []
    found = [401, 422]
    if path.endswith("{name}"):
        found.append(416)
    if path.endswith("/events"):
        found.append(503)
    if "{" in path:
        found += [404, 410]
    if method in CHANGING or path.endswith("/results") or path.endswith("{name}"):
        found.append(409)
    if method in ("post", "put", "patch"):
        found += [413, 507]
    if path == "/v1/jobs" and method == "post":
        found += [404, 410, 429, 503]
    return found


def _problem(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": reference}}}
