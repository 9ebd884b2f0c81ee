"""Graceful shutdown: a stopping worker gives its job back, and the next worker continues from its finished chunks.

A job in one piece has no finished chunks: RECON_STOP_S gives it time to finish.
"""

from __future__ import annotations

import multiprocessing
import time

from celery.signals import worker_shutting_down

from workers.settings import Settings

_until = multiprocessing.Value("d", 0.0, lock=False)
"""Monotonic deadline by which a stopping worker gives its job back; 0 while it is not stopping.

Shared with the children that the worker forks, which compute; without a lock, which a killed child would keep.
"""


class GivenBack(Exception):
    """Raised inside a computation whose worker is stopping."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def tell(**_: object) -> None:
    """Set the deadline for the computations of this worker."""
    _until.value = time.monotonic() + Settings().stop_s


def ask() -> None:
    """Raise `GivenBack` once the deadline of a stopping worker has passed."""
    if 0 < _until.value <= time.monotonic():
        raise GivenBack("the worker is stopping")
