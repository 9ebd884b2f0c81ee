"""Registry of priors: find, verify and load those shipped with the package, and a user's own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights

from operators.errors import InputError
from recon.priors import precision
from recon.priors.card import Card
from recon.priors.cards import WEIGHTS as WEIGHTS
from recon.priors.cards import card_of as card_of
from recon.priors.cards import is_path
from recon.priors.cards import names as names
from recon.priors.network import Denoiser, NetworkShape
from recon.priors.prior import NetworkPrior

MAX_BYTES = 20_000_000
"""Maximum size of a weights file, in half precision."""
REMEDY = "reinstall the package, or export weights of one's own again"
KEPT = 8
"""Size of the cache of compiled networks per process: more than are shipped."""


def load(name: str, folder: Path = WEIGHTS, *, field: str = "method.prior", int8: bool = False) -> NetworkPrior:
    """Load a prior by name, or by the path of its card; weights are read once and verified against the card.

    Parameters
    ----------
    name
        A shipped prior, or the path of a ``.yaml`` card that `recon export` wrote, with its weights beside it.
    folder
        Where names are looked up.
    field
        Field in which the name was given, for errors.
    int8
        Whether the network's blocks compute in 8-bit integers, where the processor multiplies those natively.

    Raises
    ------
    InputError
        If there is no such prior, or its weights are damaged or do not fit the card, or its card has no ranges for
        8-bit integers.
    """
    card = card_of(name, folder, field=field)
    if int8 and card.int8_ranges is None:
        raise InputError(
            f"the card of prior {card.name!r} has no ranges for 8-bit integers",
            field="method.int8",
            remedy="leave int8 out; of your own prior export the weights again, which measures them",
        )
    place = Path(name).parent if is_path(name) else folder
    try:
        return NetworkPrior(network(card, place / card.weights, int8=int8), card)
    except InputError as error:
        raise error.at(field) from error


def network(card: Card, path: Path, *, int8: bool = False) -> Denoiser:
    """Build the network of a card with the weights at `path`, ready to denoise; cached per process.

    On a CPU it is compiled (`recon.priors.engine`). The GPU path, in bfloat16, is untested: none was at hand.
    """
    return _network(card.model_dump_json(), path, int8 and precision.lacks_int8() is None)


@lru_cache(maxsize=KEPT)
def _network(card_json: str, path: Path, int8: bool) -> Denoiser:
    card = Card.model_validate_json(card_json)
    with torch.device("meta"):
        require_small(sum(value.numel() for value in new_network(card).state_dict().values()))
    found = new_network(card)
    try:
        found.load_state_dict({name: value.float() for name, value in _read(card, path).items()})
    except RuntimeError as error:
        raise InputError(
            f"the weights {path.name} do not fit the network of the card: {str(error).splitlines()[1].strip()}",
            field="method.prior",
            remedy="export the weights again, which writes their card too",
        ) from error
    found.eval().requires_grad_(False)
    if torch.cuda.is_available():
        found.arithmetic = "bfloat16"
        return found.to("cuda", torch.bfloat16)
    from recon.priors import engine

    # The card has the hash of the weights.
    found.engine = engine.compiled(found, card_json, card.int8_ranges if int8 else None)
    found.arithmetic = f"{precision.name()}, blocks in int8" if int8 else precision.name()
    return found


def check(card: Card, path: Path) -> bytes:
    """Read a weights file and verify that it is the one of the card."""
    if not path.is_file():
        raise InputError(f"the weights {path.name} are missing", field="method.prior", remedy=REMEDY)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise InputError(
            f"the weights {path.name} are damaged: sha256 {found[:12]}, the card says {card.sha256[:12]}",
            field="method.prior",
            remedy=REMEDY,
        )
    return content


def _read(card: Card, path: Path) -> dict[str, torch.Tensor]:
    content = check(card, path)
    try:
        return load_weights(content)
    except SafetensorError as error:
        raise InputError(
            f"the weights {path.name} are not safetensors: {error}", field="method.prior", remedy=REMEDY
        ) from error


def new_network(shape: NetworkShape) -> Denoiser:
    """Build an untrained network with the hyperparameters of a recipe or a card, in channels-last layout."""
    image_channels = 2 if shape.complex else 1
    condition_channels = image_channels if shape.conditional else 0
    network = Denoiser(
        image_channels,
        shape.channels,
        shape.sigma_data,
        shape.blocks,
        condition_channels,
        shape.unshuffle,
        told=shape.told,
        regression=shape.regression,
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def require_small(parameters: int) -> None:
    """Raise `InputError` if a network has so many parameters that its weights file would be too large."""
    size = 2 * parameters
    if size > MAX_BYTES:
        raise InputError(
            f"the weights take {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:g} MB are allowed",
            field="channels",
            remedy="give the recipe fewer channels, levels or blocks",
        )
