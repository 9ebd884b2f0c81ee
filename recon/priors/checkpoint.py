"""The checkpoint of a training run: one file, whole or not there, read with care."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from operators.errors import InputError


def write(path: Path, state: dict[str, Any]) -> None:
    """Write beside the old file, then replace it: a crash leaves one whole file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any]:
    """The state of a run.

    Raises
    ------
    InputError
        If the file is damaged, or from before what is asked of it now.
    """
    try:
        # Our own file; weights_only refuses anything but tensors and plain containers.
        state: dict[str, Any] = torch.load(path, weights_only=True)
        missing = {"model", "average", "optimizer", "step", "seconds", "seed", "data_hash", "recipe"} - set(state)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise _unreadable(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if missing:
        raise _unreadable(path, f"it lacks {', '.join(sorted(missing))}")
    return state


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"the checkpoint {path} cannot be read: {reason}",
        field="out",
        remedy="remove it to start again, or use another --out folder",
    )
