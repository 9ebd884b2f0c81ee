"""Background threads that repeat a function at an interval."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context

log = logging.getLogger("recon.background")


class Background:
    """Thread that calls `work` every `every_s` seconds until stopped; an error is logged and the next round is tried.

    Parameters
    ----------
    name
        Name for the log.
    work
        Function to call.
    every_s
        Pause between two rounds, in seconds.
    at_once
        Whether the first round starts at once, or after a pause.
    """

    def __init__(self, name: str, work: Callable[[], None], every_s: float, *, at_once: bool = True) -> None:
        self.name, self.work, self.every_s = name, work, every_s
        self._at_once = at_once
        self._stop = threading.Event()
        # In the context of the creating thread, so that its log lines name the same job.
        self._thread = threading.Thread(target=copy_context().run, args=(self._loop,), name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join(timeout=15)

    def _loop(self) -> None:
        if not self._at_once:
            self._stop.wait(self.every_s)
        while not self._stop.is_set():
            try:
                self.work()
            except Exception:
                log.exception("%s failed, trying again", self.name)
            self._stop.wait(self.every_s)


@contextmanager
def every(seconds: float, work: Callable[[], None], name: str) -> Iterator[None]:
    """Call `work` in a thread every so many `seconds` while the block runs."""
    thread = Background(name, work, seconds, at_once=False)
    thread.start()
    try:
        yield
    finally:
        thread.stop()
