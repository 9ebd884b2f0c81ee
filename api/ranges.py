"""Range headers that cannot be served, as problem documents; Starlette serves the others."""

from __future__ import annotations

import re

from fastapi import Request
from fastapi.responses import JSONResponse

from api.problems import problem

MOST = 100
"""Ranges of one request; with more, Starlette sends the whole file."""
_RANGE = re.compile(r"(\d{1,18})-(\d{0,18})|-(\d{1,18})")


def refusal(request: Request, size: int) -> JSONResponse | None:
    """A 416 unless every range lies in a file of `size` bytes; None if the request can be served.

    Units other than bytes, and very many ranges, are ignored as RFC 9110 allows: the whole file is sent.
    """
    header = request.headers.get("range")
    if header is None:
        return None
    unit, _, text = header.partition("=")
    ranges = text.split(",")
    if unit.strip().lower() != "bytes" or len(ranges) > MOST:
        request.scope["headers"] = [(k, v) for k, v in request.scope["headers"] if k.lower() != b"range"]
        return None
    if all(_inside(part.strip(), size) for part in ranges):
        return None
    detail = f"the range {header[:100]!r} is not in the file's {size} bytes"
    headers = {"Content-Range": f"bytes */{size}"}
    return problem(416, "range_not_satisfiable", detail, headers, field="Range", instance=request.url.path)


def _inside(text: str, size: int) -> bool:
    found = _RANGE.fullmatch(text)
    if found is None:
        return False
    first, last, suffix = found.groups()
    if suffix is not None:
        return int(suffix) > 0 and size > 0
    return int(first) < size and (not last or int(last) >= int(first))
