"""Pagination of jobs by a cursor, which stays correct while jobs come and go."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

from operators.errors import InputError
from workers.store import Record


def cut(records: list[Record], limit: int, cursor: str | None) -> tuple[list[Record], str | None]:
    """Cut the page after a cursor from records, newest first; also returns the next page's cursor, if there is one."""
    if cursor is not None:
        last = _read(cursor)
        records = [r for r in records if (r.created, r.id) < last]
    page = records[:limit]
    return page, _write(page[-1]) if len(records) > limit else None


def link(path: str, filters: dict[str, str | None], cursor: str) -> str:
    """URL of the next page, with the same filters."""
    return f"{path}?{urlencode({k: v for k, v in {**filters, 'cursor': cursor}.items() if v is not None})}"


def _write(record: Record) -> str:
    return base64.urlsafe_b64encode(json.dumps([record.created, record.id]).encode()).decode()


def _read(cursor: str) -> tuple[str, str]:
    try:
        created, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, TypeError) as error:
        raise InputError("it is none of ours", field="cursor", remedy="take it from `next` of a page") from error
    return str(created), str(job_id)
