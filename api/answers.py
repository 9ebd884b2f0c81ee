"""What the routes answer, for the OpenAPI document: JSON schemas, and the headers that a program relies on."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from recon.planning.plan import Plan
from workers.store import Record

Schema = dict[str, Any]
TEXT, NUMBER, COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _object(**fields: Schema) -> Schema:
    """An object with all of these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _job() -> Schema:
    record = TypeAdapter(Record).json_schema()["properties"]
    del record["token"]  # the workers' own
    estimate = _object(start_s=_or_null(NUMBER), duration_s=_or_null(NUMBER))
    links = {"type": "object", "additionalProperties": TEXT}
    more = {
        "queue_position": _or_null(COUNT),
        "estimate": _or_null(estimate),
        "expires": _or_null(TEXT),
        "links": links,
    }
    return _object(**record, **more)


def _estimate() -> Schema:
    plan = Plan.model_json_schema(mode="serialization")["properties"]
    return _object(**plan, limit_bytes=COUNT, fits={"type": "boolean"})


FILE = _object(name=TEXT, bytes=COUNT, sha256=SHA256, href=TEXT)
SCHEMAS: dict[str, Schema] = {
    "Job": _job(),
    "Jobs": _object(jobs=_list(_ref("Job")), total=COUNT, truncated={"type": "boolean"}, next=_or_null(TEXT)),
    "Purged": _object(id=TEXT, purged={"const": True}),
    "Results": _object(id=TEXT, files=_list(FILE)),
    "Estimate": _estimate(),
    "Upload": _object(id=TEXT, bytes=COUNT, sha256=SHA256, created=TEXT, owner=_or_null(TEXT)),
    "UploadBegun": _object(id=TEXT, bytes=COUNT, complete={"const": False}),
    "Ready": _object(status={"const": "ready"}, queued=COUNT),
}

JSON = "application/json"
JOB = {JSON: _ref("Job")}
UPLOADED = {JSON: {"oneOf": [_ref("Upload"), _ref("UploadBegun")]}}
BINARY = {"type": "string", "format": "binary"}
RESULTS = {**dict.fromkeys(("application/octet-stream", "application/gzip", "image/png"), BINARY), JSON: {}}
EVENT = _object(id=TEXT, event={"enum": ["state", "progress", "log"]}, data=TEXT)
CONTENT: dict[tuple[str, str, str], dict[str, Schema]] = {
    ("put", "/v1/uploads", "201"): UPLOADED,
    ("post", "/v1/uploads", "201"): UPLOADED,
    ("head", "/v1/uploads/{upload_id}", "200"): {},
    ("get", "/v1/uploads/{upload_id}", "200"): UPLOADED,
    ("patch", "/v1/uploads/{upload_id}", "200"): {JSON: _ref("Upload")},
    ("post", "/v1/jobs", "202"): JOB,
    ("post", "/v1/jobs", "200"): JOB,
    ("get", "/v1/jobs", "200"): {JSON: _ref("Jobs")},
    ("post", "/v1/estimates", "200"): {JSON: _ref("Estimate")},
    ("get", "/v1/jobs/{job_id}", "200"): JOB,
    ("delete", "/v1/jobs/{job_id}", "200"): {JSON: {"oneOf": [_ref("Job"), _ref("Purged")]}},
    ("delete", "/v1/jobs/{job_id}", "202"): JOB,
    ("get", "/v1/jobs/{job_id}/spec", "200"): {JSON: _ref("JobSpec")},
    ("get", "/v1/jobs/{job_id}/results", "200"): {JSON: _ref("Results")},
    ("get", "/v1/jobs/{job_id}/results/{name}", "200"): RESULTS,
    ("get", "/v1/jobs/{job_id}/events", "200"): {"text/event-stream": EVENT},
    ("get", "/readyz", "200"): {JSON: _ref("Ready")},
}
"""Schema of each media type, by method, path and status."""

LOCATION = {"Location": TEXT}
PLACE = {"Upload-Offset": COUNT, "Upload-Length": COUNT}
HEADERS: dict[tuple[str, str, str], dict[str, Schema]] = {
    ("put", "/v1/uploads", "201"): LOCATION,
    ("post", "/v1/uploads", "201"): LOCATION,
    ("head", "/v1/uploads/{upload_id}", "200"): PLACE,
    ("patch", "/v1/uploads/{upload_id}", "204"): PLACE,
    ("post", "/v1/jobs", "202"): {**LOCATION, "ETag": TEXT},
    ("get", "/v1/jobs/{job_id}", "200"): {"ETag": TEXT},
}
"""Schema of the headers that always come, by method, path and status; `X-Request-ID` comes with every answer."""


def describe(method: str, path: str, responses: dict[str, Any]) -> None:
    """Put content and headers into a route's responses that are no problems."""
    for kind, where in ((CONTENT, "content"), (HEADERS, "headers")):
        for (for_method, for_path, status), found in kind.items():
            if (for_method, for_path) == (method, path):
                response = responses.setdefault(status, {"description": "As after some waiting (`Prefer: wait`)."})
                required = {"required": True} if where == "headers" else {}
                response[where] = {name: {"schema": schema, **required} for name, schema in found.items()}
