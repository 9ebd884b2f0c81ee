"""Reading the events of a job: ``events.jsonl``, one JSON object a line, appended while the job goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PIECE = 2**16
"""Bytes read at a time, so that a long log is never in memory as a whole."""


class Tail:
    """The events after one already seen, as they come.

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
        """The next few events; empty when there are none now. A line being written is left for later."""
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


def events(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """All events of a job's folder after one already seen."""
    tail, found = Tail(folder / "events.jsonl", after), []
    while some := tail.read():
        found += some
    return found
