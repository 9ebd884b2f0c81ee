"""Cancellation of long computations: inner loops call `checkpoint`, which raises if the caller wants to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ask: ContextVar[Callable[[], None] | None] = ContextVar("ask", default=None)


@contextmanager
def interruptible(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` at every `checkpoint` while the block runs; it raises to stop the computation."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def checkpoint() -> None:
    """Allow cancellation here; inner loops call this about once per second or more often."""
    ask = _ask.get()
    if ask is not None:
        ask()
