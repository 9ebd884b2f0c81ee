"""The log of a service: one JSON object a line, with the request and the job that it is about where they are known."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request being answered."""
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)
"""Of the job being computed, or asked about."""


class Lines(logging.Formatter):
    """A record as one line of JSON; its attribute ``fields``, a mapping, is added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
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
    """Write what every logger of this process says to standard error, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a webhook, with its address
    logging.captureWarnings(True)
