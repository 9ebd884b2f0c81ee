"""A worker that is told to stop gives its job back instead of finishing it: the next one goes on with its chunks.

A job in one piece has no chunks that could be gone on with: RECON_STOP_S gives it time to finish.
"""

from __future__ import annotations

import multiprocessing
import time

from celery.signals import worker_shutting_down

from workers.settings import Settings

_until = multiprocessing.Value("d", 0.0, lock=False)
"""Until when a worker that was told to stop goes on, on the monotonic clock; 0 before that.

Shared with the children that the worker forks, which compute; without a lock, which a killed child would keep.
"""


class GivenBack(Exception):
    """Raised inside a computation whose worker is told to stop."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def tell(**_: object) -> None:
    """Tell the computations of this worker."""
    _until.value = time.monotonic() + Settings().stop_s


def ask() -> None:
    """Raise `GivenBack` if this worker is to stop, and the time for finishing is over."""
    if 0 < _until.value <= time.monotonic():
        raise GivenBack("the worker is stopping")
