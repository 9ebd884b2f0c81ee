"""Checkpoint of a training run: one file, written atomically and read with checks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from operators.errors import InputError
from recon.priors.card import Card
from recon.spec.upgrade import renamed
from recon.spec.validation import reason
from recon.storage.atomic import atomic_write
from recon.training.recipe import Recipe

STATE = {"model", "average", "optimizer", "step", "seconds", "seed", "data_hash", "recipe"}
"""Fields that every checkpoint has."""


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside the old one, then replace it: a crash leaves one complete file."""
    with atomic_write(path) as file:
        torch.save(state, file)


def read(path: Path, field: str) -> tuple[dict[str, Any], Recipe]:
    """Read the state of a run, and its recipe; `field` names the field of its folder, for errors.

    Raises
    ------
    InputError
        If the file is damaged, or from before what is asked of it now.
    """
    try:
        # Our own file; weights_only refuses anything but tensors and plain containers.
        state: dict[str, Any] = torch.load(path, weights_only=True)
        missing = STATE - set(state)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if isinstance(state.get("start"), dict):
            state["start"] = renamed(Card, state["start"])
        recipe = state["recipe"]
        return state, Recipe.model_validate(renamed(Recipe, recipe) if isinstance(recipe, dict) else recipe)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"the checkpoint {path} cannot be read: {reason(error)}",
            field=field,
            remedy="train again in another folder, or remove the file to start again in this one",
        ) from error
