"""Structured log of a service: one JSON object per line, with the ids of the request and the job if known."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered."""
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)
"""Id of the job that is being computed or asked about."""


class Lines(logging.Formatter):
    """Formatter that writes a record as one line of JSON and adds its attribute ``fields``, a mapping."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = {"request_id": request_id.get(), "job_id": job_id.get()}
        line |= {name: value for name, value in about.items() if value is not None}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def install() -> None:
    """Write all log records of this process from level INFO to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a webhook, with its address
    logging.captureWarnings(True)
