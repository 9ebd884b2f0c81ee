"""Functions compiled by numba: kept on disk, run by threads of our own, announced where the first call takes long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numba

from operators.interrupt import checkpoint

SLOW_S = 4.0
"""Seconds after which a first call is said to compile."""
FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}
"""Liberties of the compiler: not those that would let it take NaN for something else."""

log = logging.getLogger("recon.operators.compiled")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, and keep the result on disk where there is a place for it.

    Numba's own threads are not used: they would not survive a fork, nor be called from two threads.
    """
    try:
        found: Callable[..., Any] = numba.njit(nogil=True, cache=True, fastmath=FAST_MATH)(function)
    except RuntimeError as error:  # neither the package's folder nor the user's can be written to
        log.warning("projectors are compiled anew in every process: %s; set NUMBA_CACHE_DIR to a folder", error)
        found = numba.njit(nogil=True, fastmath=FAST_MATH)(function)
    return found


def in_threads(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run tasks, which release the interpreter's lock, in so many threads; between tasks they can be cancelled."""
    if threads == 1:
        for task in tasks:
            checkpoint()
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda task: task(), tasks):
            checkpoint()


@contextmanager
def announced() -> Iterator[None]:
    """Say that functions are being compiled if the block takes long."""
    told = threading.Timer(SLOW_S, log.warning, ("compiling the projectors of volumes, once per installation",))
    told.daemon = True
    told.start()
    try:
        yield
    finally:
        told.cancel()
