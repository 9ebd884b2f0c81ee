"""Finding, checking and loading the priors shipped with the package, and exporting trained ones."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from operators.errors import InputError
from recon.priors.card import Card
from recon.priors.network import Denoiser
from recon.priors.prior import NetworkPrior
from recon.priors.recipe import Recipe

WEIGHTS = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Priors shipped with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.yaml"))


def load(name: str, folder: Path = WEIGHTS) -> NetworkPrior:
    """Load a prior by name; weights are read once a process and verified against the card.

    Raises
    ------
    InputError
        If there is no such prior, or its weights are damaged or do not fit the card.
    """
    card_path = folder / f"{name}.yaml"
    if not card_path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise InputError(f"there is no prior {name!r}", field="method.prior", remedy=f"known priors: {known}")
    card = Card.read(card_path)
    return NetworkPrior(_network(card, folder / card.weights), card)


@lru_cache(maxsize=4)
def _read(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"the weights {path.name} are missing", field="method.prior", remedy="reinstall the package")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InputError(
            f"the weights {path.name} are damaged: sha256 {found[:12]}, the card says {sha256[:12]}",
            field="method.prior",
            remedy="reinstall the package or export the weights again",
        )
    return load_file(path)


def _network(card: Card, path: Path) -> Denoiser:
    network = Denoiser(2 if card.complex else 1, card.channels, card.sigma_data)
    try:
        network.load_state_dict({k: v.float() for k, v in _read(path, card.sha256).items()})
    except RuntimeError as error:
        raise InputError(
            f"the weights {path.name} do not fit the network of the card: {str(error).splitlines()[0]}",
            field="method.prior",
        ) from error
    # The GPU path is untested: none was at hand.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def export(checkpoint: Path, command: str, folder: Path = WEIGHTS) -> Card:
    """Write the averaged weights of a training run as fp16 safetensors with a card.

    Parameters
    ----------
    checkpoint
        ``checkpoint.pt`` of the run.
    command
        The training command, quoted in the card.
    folder
        Where to put ``NAME.safetensors`` and ``NAME.yaml``.
    """
    from recon.priors.training import last_validation

    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    recipe = Recipe.model_validate(state["recipe"])
    tensors = {k: v.to(torch.float16).contiguous() for k, v in state["average"].items()}
    path = folder / f"{recipe.name}.safetensors"
    save_file(tensors, path)
    card = Card(
        name=recipe.name,
        modality=recipe.modality,
        complex=recipe.complex,
        axis=recipe.axis,
        sigma_data=recipe.sigma_data,
        channels=recipe.channels,
        weights=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        parameters=sum(t.numel() for t in tensors.values()),
        data=[source.file for source in recipe.sources],
        data_sha256=state["data_hash"],
        command=command,
        seed=state["seed"],
        steps=state["step"],
        hours=round(state["seconds"] / 3600, 2),
        denoising_psnr=last_validation(checkpoint.parent),
        limits=recipe.limits,
    )
    card.write(folder / f"{recipe.name}.yaml")
    return card
