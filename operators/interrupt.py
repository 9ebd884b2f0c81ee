"""Stopping a long computation from within: whoever runs one says how to ask, its inner loops ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ask: ContextVar[Callable[[], None] | None] = ContextVar("ask", default=None)


@contextmanager
def interruptible(ask: Callable[[], None]) -> Iterator[None]:
    """While the block runs, every `checkpoint` calls `ask`, which raises to stop the computation."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def checkpoint() -> None:
    """A point of an inner loop, less than a second from the next, where the computation may be stopped."""
    ask = _ask.get()
    if ask is not None:
        ask()
