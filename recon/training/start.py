"""Start of a training run: initial weights from another prior, and the identity of the data."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from operators.errors import InputError
from recon.priors.card import Card
from recon.priors.network import Denoiser
from recon.priors.registry import load
from recon.training.slices import SliceSet


def start_from(network: Denoiser, name: str) -> Card:
    """Load the weights of prior `name` into `network`; returns the prior's card.

    A condition that the prior does not have, or factors that it is not told, start without effect.
    """
    prior = load(name, field="start")
    weights = {k: v.float() for k, v in prior.network.state_dict().items()}
    for key, inputs in (("stem.weight", network.stem.in_channels), ("embed.0.weight", network.known)):
        known = weights[key]
        missing = inputs - known.shape[1]
        if missing > 0:
            weights[key] = torch.cat([known, known.new_zeros(len(known), missing, *known.shape[2:])], dim=1)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the weights of prior {name!r} do not fit this recipe: {str(error).splitlines()[1].strip()}",
            field="start",
            remedy="use the same channels, blocks and kind of image",
        ) from error
    return prior.card


def start_of(state: dict[str, Any]) -> Card | None:
    """Card of the prior from which the run of a checkpoint started, as it was then."""
    kept = state.get("start")
    return None if kept is None else Card.model_validate({**kept, "familiarity": None})


def data_hash(sets: list[SliceSet]) -> str:
    """Hash of the training data: a hash of the files' hashes."""
    return hashlib.sha256("".join(s.sha256 for s in sets).encode()).hexdigest()
