"""OpenAPI document: FastAPI's, completed by the headers and bodies that routes read themselves, and by the errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from api.models import Problem
from recon.spec.files import UPLOAD_ID
from recon.spec.job import JobSpec

JOB_SPEC_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
}
"""Request body that a route parses itself, more strictly than FastAPI would."""
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
STRING: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def header_parameter(name: str, description: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    """Describe a header that a route reads itself."""
    found = {"name": name, "in": "header", "description": description, "schema": {**STRING, **schema}}
    return {**found, "required": True} if required else found


PREFER_WAIT = header_parameter("Prefer", "`wait=SECONDS`: answer when the job has ended, or after that time.")


def headers(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    """Describe response headers that are always present, `X-Request-ID` included."""
    return {name: {"schema": schema, "required": True} for name in names}


def install(app: FastAPI) -> None:
    """Complete the application's document when it is first requested."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = generate()["components"]["schemas"]
            problem = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
            schemas.update({**problem.pop("$defs"), "Problem": problem})
            # As it is sent, and with the defaults of null, which FastAPI leaves out.
            spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update({**spec.pop("$defs"), "JobSpec": spec})
            _say_that_servers_read_uploads(schemas)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _say_that_servers_read_uploads(schemas: dict[str, Any]) -> None:
    """Restrict files, a path or an upload, to uploads: the only kind over HTTP."""
    for name in ("File", "Input"):
        file = schemas[name]["properties"]
        file["path"] = {"type": "null", "description": "For the command line; a server reads uploads only."}
        file["upload"] = {"type": "string", "pattern": UPLOAD_ID, "description": "Id of an upload."}
        schemas[name]["required"] = ["upload"]
