"""Pagination of jobs and uploads by a cursor, which stays correct while they come and go."""

from __future__ import annotations

import base64
import json
from typing import Protocol, TypeVar
from urllib.parse import urlencode

from operators.errors import InputError


class Dated(Protocol):
    """Protocol of things with an id and the time at which they were made, ISO 8601 in UTC."""

    @property
    def id(self) -> str:
        """Id, unlike all others."""

    @property
    def created(self) -> str:
        """Time at which it was made."""


T = TypeVar("T", bound=Dated)


def cut(found: list[T], limit: int, cursor: str | None) -> tuple[list[T], str | None]:
    """Cut the page after a cursor from a list, newest first; also returns the next page's cursor, if there is one."""
    if cursor is not None:
        last = _read(cursor)
        found = [one for one in found if (one.created, one.id) < last]
    page = found[:limit]
    return page, _write(page[-1]) if len(found) > limit else None


def link(path: str, filters: dict[str, str | None], cursor: str) -> str:
    """URL of the next page, with the same filters."""
    return f"{path}?{urlencode({k: v for k, v in {**filters, 'cursor': cursor}.items() if v is not None})}"


def _write(last: Dated) -> str:
    return base64.urlsafe_b64encode(json.dumps([last.created, last.id]).encode()).decode()


def _read(cursor: str) -> tuple[str, str]:
    try:
        created, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, TypeError) as error:
        raise InputError("it is none of ours", field="cursor", remedy="take it from `next` of a page") from error
    return str(created), str(job_id)
