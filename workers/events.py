"""Event log of a job: one JSON line per event in ``jobs/ID/events.jsonl``, numbered 1, 2, 3.

A process that appends holds the job's state lock.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from operators.errors import ReconError

Event = Literal["state", "progress", "log"]
FIELDS = ("state", "progress", "stage", "step", "steps", "data_misfit", "error")
"""Fields of a job's record that its events contain."""
TAIL = 2**16
PIECE = 2**16
"""Bytes read at a time, so that a long log is never in memory as a whole."""
LONGEST_MESSAGE = 2000


def append(path: Path, event: Event, data: dict[str, Any]) -> None:
    """Append an event, and remove an incomplete one left by a crashed process."""
    with path.open("a+b") as stream:
        before, whole = _last(stream)
        stream.truncate(whole)
        number = 1 if before is None else before["id"] + 1
        at = datetime.now(UTC).isoformat()
        stream.write(json.dumps({"id": number, "event": event, "at": at, "data": data}).encode() + b"\n")


def last(path: Path) -> dict[str, Any] | None:
    """Return the newest event."""
    if not path.exists():
        return None
    with path.open("rb") as stream:
        return _last(stream)[0]


def _last(stream: Any) -> tuple[dict[str, Any] | None, int]:
    """Return the newest complete event, and the offset of its end."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - TAIL))
    tail = stream.read()
    end = tail.rfind(b"\n")
    if end < 0:
        return None, 0
    start = tail.rfind(b"\n", 0, end) + 1
    found: dict[str, Any] = json.loads(tail[start:end])
    return found, size - len(tail) + end + 1


class Tail:
    """Reader that follows the events after one already seen.

    Parameters
    ----------
    path
        The file, which need not exist yet.
    after
        Id of the last event already seen.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self.path, self.after = path, after
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the next few events; empty if there are none now. A line being written is left for later."""
        found: list[dict[str, Any]] = []
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return found
        with stream:
            stream.seek(self._position)
            size = 0
            while size < PIECE and (line := stream.readline()).endswith(b"\n"):
                self._position += len(line)
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # cut short by a crash, and ended by the next writer
                if event["id"] > self.after:
                    found.append(event)
                    size += len(line)
        return found


@contextmanager
def log_kept(keep: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Pass what the loggers ``recon*`` of this process log to `keep` while the block runs."""
    logger, handler = logging.getLogger("recon"), _Handler(keep)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Handler(logging.Handler):
    """Log handler that passes on level, logger and message, without tracebacks: those are for the worker's own log."""

    def __init__(self, keep: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.INFO)
        self._keep, self._busy = keep, threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        # Keeping a line takes the state lock, under which the store may itself have something to say.
        if getattr(self._busy, "now", False) or record.name == "recon.store":
            return
        self._busy.now = True
        try:
            message = record.getMessage()[:LONGEST_MESSAGE]
            self._keep({"level": record.levelname, "logger": record.name, "message": message})
        except (ReconError, OSError, ValueError, TypeError):
            self.handleError(record)
        finally:
            self._busy.now = False
