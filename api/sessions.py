"""Routes of sessions: a browser shows its API key once and then has a cookie, which scripts cannot read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api import bodies, problems, strict_json
from api.links import link
from api.models import Session
from api.service import Service, key_of, service
from operators.errors import Conflict, InputError
from workers import sessions
from workers.http_errors import Unauthorized
from workers.keys import KeyRing

router = APIRouter(tags=["service"])
COOKIE = "recon_session"
PATH = "/v1/session"
KEY_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "key": {"type": "string", "minLength": 1, "maxLength": 200, "description": "The API key."}
                },
                "required": ["key"],
                "additionalProperties": False,
            }
        }
    },
}


@router.post(
    PATH,
    status_code=201,
    response_model=Session,
    responses=problems.responses(401, 409, 413, 415, 422),
    openapi_extra={"requestBody": KEY_BODY},
)
async def begin(request: Request, response: Response) -> Session:
    """Begin a session with an API key; the answer's cookie then stands for the key.

    The cookie is HttpOnly and SameSite=Strict, and Secure where the client came by https.
    """
    found = service(request)
    body = strict_json.parse(await bodies.small_json(request))
    given = body.get("key") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(given, str):
        raise InputError("the body has no key", field="key", remedy='send {"key": "rk_..."} and nothing else')
    key = await run_in_threadpool(_ring(found).find, given)
    if key is None:
        raise Unauthorized("this key is unknown", field="key", remedy="`recon key NAME` makes one")
    before = request.cookies.get(COOKIE)
    if before is not None:
        await run_in_threadpool(sessions.end, found.sessions, before)
    token, session = await run_in_threadpool(sessions.begin, found.sessions, key)
    response.set_cookie(COOKIE, token, max_age=sessions.LASTS_H * 3600, **_attributes(request))
    response.headers["Cache-Control"] = "no-store"
    return Session(owner=key.name, expires=session.expires)


@router.get(PATH, responses=problems.responses(401))
@router.head(PATH, include_in_schema=False)
def show(request: Request, response: Response) -> Session:
    """Whose key or session the request has; `owner` is null on a server without keys."""
    response.headers["Cache-Control"] = "no-store"
    key = key_of(request)
    return Session(owner=key.name if key else None, expires=getattr(request.state, "session_expires", None))


@router.delete(PATH, status_code=204, responses=problems.responses(401))
def end(request: Request) -> Response:
    """End the session of the cookie, here and in the browser."""
    token = request.cookies.get(COOKIE)
    if token is not None:
        sessions.end(service(request).sessions, token)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, **_attributes(request))
    return response


def _ring(found: Service) -> KeyRing:
    if found.keys is None:
        raise Conflict("this server has no keys", field="key", remedy="go on without a session")
    return found.keys


def _attributes(request: Request) -> dict[str, Any]:
    secure = request.url.scheme == "https"
    return {"path": link("/"), "secure": secure, "httponly": True, "samesite": "strict"}
