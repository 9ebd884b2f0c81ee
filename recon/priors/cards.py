"""Cards of the shipped priors, found and read without loading what computes with them."""

from __future__ import annotations

import re
from pathlib import Path

from operators.errors import InputError
from recon.priors.card import Card
from recon.spec.methods import CARD_ENDINGS, PRIOR_NAME

WEIGHTS = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Names of the priors shipped with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.yaml"))


def card_of(name: str, folder: Path = WEIGHTS, *, field: str = "method.prior") -> Card:
    """Read the card of a prior, without its weights."""
    path = Path(name) if is_path(name) else folder / f"{name}.yaml"
    if not (is_path(name) or re.fullmatch(PRIOR_NAME, name)) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise InputError(
            f"there is no prior {name!r}",
            field=field,
            remedy=f"known priors: {known}; or the path of a card written by recon export",
        )
    return Card.read(path, field)


def is_path(name: str) -> bool:
    """Whether a prior is given by the path of its card."""
    return name.endswith(CARD_ENDINGS)
