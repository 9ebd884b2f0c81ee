"""Resumption of solvers in the middle: their state between two iterations, kept on disk where a caller says where.

A solver of a whole volume has no finished slabs that a killed job could go on from. So it keeps its state, and looks
for one when it begins. Which file that is depends on the process that drives it: a context variable has it, as with
`operators.interrupt`. Without one nothing is kept, which costs nothing.

One solver may run another, or several one after the other: a state belongs to those settings that made it, and the
volumes of those that have ended are kept beside it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from recon.spec.methods import MethodSettings
from recon.storage.atomic import atomic_write

LEAST_S = 1.0
"""Least seconds between two states that are kept."""
SHARE = 0.05
"""Largest part of the time that may go into keeping states."""
log = logging.getLogger("recon.problem.resume")


class Stateful(Protocol):
    """Protocol of a part of a solver that changes from iteration to iteration: in the attributes that `KEPT` names."""

    KEPT: ClassVar[tuple[str, ...]]


class Recalled(NamedTuple):
    """State that was kept: iterations that are done, and tensors by name."""

    step: int
    tensors: dict[str, Tensor]


class StateFile:
    """File with the latest state of a running solver."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = time.monotonic() + LEAST_S

    def read(self, settings: str) -> dict[str, Any] | None:
        """The state, if it was made with these settings; one that cannot be read is logged and left."""
        found: dict[str, Any] | None = _loaded(self.path)
        return found if found is not None and found.get("settings") == settings else None

    def ended(self, part: int) -> Path:
        """File of the volume of one of several solvers."""
        return self.path.with_name(f"{self.path.name}-{part}")

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state, unless that would take too much of the time."""
        began = time.monotonic()
        if began < self._next:
            return
        with atomic_write(self.path, durable=False) as stream:
            torch.save(state, stream)
        now = time.monotonic()
        self._next = now + max(LEAST_S, (now - began) / SHARE)

    def remove(self) -> None:
        """Remove what was kept of a solver that has ended."""
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink(missing_ok=True)


_file: ContextVar[StateFile | None] = ContextVar("state_file", default=None)


@contextmanager
def kept_in(file: StateFile | None) -> Iterator[None]:
    """Keep states of solvers in a file while the block runs."""
    token = _file.set(file)
    try:
        yield
    finally:
        _file.reset(token)


def keep(settings: MethodSettings, step: int, tensors: dict[str, Tensor], *parts: Stateful | None) -> None:
    """Keep the state of a solver after `step` iterations: its tensors, and what its parts hold."""
    file = _file.get()
    if file is not None:
        made_by = settings.model_dump_json()
        file.write({"settings": made_by, "step": step, "tensors": tensors, "parts": [_of(part) for part in parts]})


def recalled(settings: MethodSettings, *parts: Stateful | None) -> Recalled | None:
    """State that a solver with these settings kept, its parts set to theirs; None if there is none to go on from."""
    file = _file.get()
    found = None if file is None else file.read(settings.model_dump_json())
    if found is None:
        return None
    for part, state in zip(parts, found["parts"], strict=True):
        for attribute, value in state.items():
            setattr(part, attribute, value)
    return Recalled(found["step"], found["tensors"])


def keep_volume(part: int, volume: Tensor) -> None:
    """Keep the volume of one of several solvers, which run one after the other."""
    file = _file.get()
    if file is not None:
        with atomic_write(file.ended(part), durable=False) as stream:
            torch.save(volume, stream)


def recalled_volume(part: int) -> Tensor | None:
    """Volume of one of several solvers, if it was kept."""
    file = _file.get()
    found: Tensor | None = None if file is None else _loaded(file.ended(part))
    return found


def _loaded(path: Path) -> Any:
    """Content of a file; None where there is none, or where it cannot be read, which is logged."""
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes torch raise
        log.warning("what was kept in %s cannot be read, beginning anew: %s", path.name, error)
        return None


def _of(part: Stateful | None) -> dict[str, Any]:
    return {} if part is None else {attribute: getattr(part, attribute) for attribute in part.KEPT}
