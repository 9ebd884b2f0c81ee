"""Work that the API process repeats in a thread beside serving requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("recon.background")


class Background:
    """Calls `work` every `every_s` seconds until stopped; an error is logged and the next round is tried.

    Parameters
    ----------
    name
        For the log.
    work
        What to do.
    every_s
        Pause between two rounds, in seconds.
    """

    def __init__(self, name: str, work: Callable[[], None], every_s: float) -> None:
        self.name, self.work, self.every_s = name, work, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join(timeout=15)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self.work()
            except Exception:
                log.exception("%s failed, trying again", self.name)
            self._stop.wait(self.every_s)
