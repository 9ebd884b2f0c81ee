"""Range headers (RFC 9110, section 14), prepared for Starlette, which handles only ranges inside the file."""

from __future__ import annotations

import re

from fastapi import Request
from fastapi.responses import JSONResponse

from api.problems import problem

MOST = 100
"""Maximum number of ranges per request; with more, the whole file is sent."""
_RANGE = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")
_HUGE = 10**18
"""Upper bound on positions, larger than any file."""


def refusal(request: Request, size: int) -> JSONResponse | None:
    """Check the Range header for a file of `size` bytes: 416 if no range is satisfiable or one is malformed, else None.

    Ranges outside the file are removed from the header. If ranges have to be ignored, or may be because there are very
    many, the header is removed and the whole file is sent.
    """
    header = request.headers.get("range")
    if header is None:
        return None
    unit, _, text = header.partition("=")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if request.method != "GET" or unit.strip().lower() != "bytes" or len(parts) > MOST:
        _replace(request, None)
        return None
    ranges = [_meant(part, size) for part in parts]
    inside = [found for found in ranges if found]
    if inside and None not in ranges:
        _replace(request, "bytes=" + ",".join(inside))
        return None
    if "if-range" in request.headers:  # a client that is ready for the whole file
        _replace(request, None)
        return None
    detail = f"the range {header[:100]!r} is not in the file's {size} bytes"
    headers = {"Content-Range": f"bytes */{size}"}
    return problem(416, "range_not_satisfiable", detail, headers, field="Range", instance=request.url.path)


def _meant(text: str, size: int) -> str | None:
    """Clip a range to the file; empty if it lies outside, None if it is malformed."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    first, last, suffix = (None if digits is None else _number(digits) for digits in found.groups())
    if suffix is not None:
        return f"{max(size - suffix, 0)}-{size - 1}" if suffix and size else ""
    assert first is not None and last is not None
    end = last if found[2] else _HUGE
    if end < first:
        return None
    return f"{first}-{min(end, size - 1)}" if first < size else ""


def _number(digits: str) -> int:
    """Parse a number that may have more digits than Python converts; 0 if there are none."""
    significant = digits.lstrip("0")
    return _HUGE if len(significant) > 18 else int(significant or 0)


def _replace(request: Request, value: str | None) -> None:
    """Replace or remove the header that Starlette will read."""
    kept = [(k, v) for k, v in request.scope["headers"] if k.lower() != b"range"]
    request.scope["headers"] = kept if value is None else [*kept, (b"range", value.encode())]
