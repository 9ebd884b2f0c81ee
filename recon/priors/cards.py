"""Cards of the shipped priors, found and read without loading what computes with them."""

from __future__ import annotations

import re
from pathlib import Path

from operators.errors import InputError
from recon.priors.card import Card
from recon.spec.methods import CARD_ENDINGS, DEFAULT_PRIOR, PRIOR_NAME, Diffusion

WEIGHTS = Path(__file__).parent / "weights"


def names(folder: Path = WEIGHTS) -> list[str]:
    """Names of the priors in a folder, by default of those shipped with the package."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def card_of(name: str, folder: Path = WEIGHTS, *, field: str = "method.prior") -> Card:
    """Read the card of a prior, without its weights."""
    path = Path(name) if is_path(name) else folder / f"{name}.yaml"
    if not (is_path(name) or re.fullmatch(PRIOR_NAME, name)) or not path.is_file():
        known = ", ".join(names(folder)) or "none"
        raise InputError(
            f"there is no prior {name!r}",
            field=field,
            remedy=f"known priors: {known}; or the path of a card written by recon export",
        )
    return Card.read(path, field)


def usual(method: Diffusion, modality: str, factor: float | None, folder: Path = WEIGHTS) -> str:
    """Name of the prior that a method takes where the job names none: what the cards say they cover decides.

    The modality's, or for a method of super-resolution one that covers the factor: of several that of the widest range
    of factors, which has learnt from the more varied stacks, then the one that was trained the longest.

    Raises
    ------
    InputError
        If no prior covers the factor.
    """
    if method.CONDITIONS != "super-resolution" or factor is None:
        return DEFAULT_PRIOR[modality]
    refining = _refining(modality, folder)
    fitting = [card for card in refining if card.for_factor(factor)]
    if not fitting:
        known = ", ".join(f"{card.name} ({card.condition})" for card in refining) or "none"
        raise InputError(
            f"no prior covers super-resolution of {modality} by x{factor:g}",
            field="method.prior",
            remedy=f"known: {known}; or use another method, as tv or red-diff",
        )
    return max(fitting, key=lambda card: (card.factor_span, card.total_hours)).name


def covered(method: Diffusion, modality: str, factor: float | None) -> bool:
    """Whether a method has a prior for scans of a modality, and of a factor."""
    if method.CONDITIONS != "super-resolution" or factor is None:
        return modality in DEFAULT_PRIOR
    return any(card.for_factor(factor) for card in _refining(modality, WEIGHTS))


def _refining(modality: str, folder: Path) -> list[Card]:
    """Cards of the priors for super-resolution of a modality."""
    cards = [card_of(name, folder) for name in names(folder)]
    return [card for card in cards if card.modality == modality and card.refines and not card.regression]


def is_path(name: str) -> bool:
    """Whether a prior is given by the path of its card."""
    return name.endswith(CARD_ENDINGS)
