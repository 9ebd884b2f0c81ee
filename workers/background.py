"""Something done again and again beside a computation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("recon.worker")


@contextmanager
def every(seconds: float, do: Callable[[], None], name: str) -> Iterator[None]:
    """While the block runs, call `do` in a thread every so many seconds; what it raises is logged."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            try:
                do()
            except Exception:
                log.exception("%s failed, trying again", name)

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
