"""A worker that is told to stop gives its job back instead of finishing it: the next one goes on with its slabs."""

from __future__ import annotations

import multiprocessing

from celery.signals import worker_shutting_down

_told = multiprocessing.Value("b", 0, lock=False)
"""Shared with the children that the worker forks, which compute; no lock, which a killed child would keep."""


class GivenBack(Exception):
    """Raised inside a computation whose worker is told to stop."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def tell(**_: object) -> None:
    """Tell the computations of this worker."""
    _told.value = 1


def ask() -> None:
    """Raise `GivenBack` if this worker is to stop."""
    if _told.value:
        raise GivenBack("the worker is stopping")
