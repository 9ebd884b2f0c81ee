"""Model cards of the shipped priors as one page: a table of all, then each in the usual sections.

Usage: ``make release-docs``, or ``python -m tools.release.model_cards > docs/reference/model-cards.md``. A test holds
that the page is that of the cards in `recon/priors/weights`.
"""

from __future__ import annotations

from recon.priors import cards
from recon.priors.card import Card

HEAD = """\
# Model cards of the shipped priors

This page is made from the cards beside the weights (`recon/priors/weights`) by `python -m tools.release.model_cards`.
`recon priors NAME` prints a card as it is.

A prior is a denoiser for Gaussian noise of any level: a U-Net of plain convolutions. It works on a scale where images
fill -1 to 1, and sigma is the standard deviation of the noise on that scale. The Jacobian of an exact denoiser is
symmetric; its asymmetry is 0.
"""
KINDS = {"ct": "CT", "mri": "MRI"}
USE = """\
Intended use: to regularise the reconstruction of {kind} images by the methods of this project, in research. Every
result is fitted to its measurement, and the report says how well it fits.

Not intended: diagnosis, and images of another kind than the training data (see the limits). It is not a medical device.
Where the data are few, a prior draws detail that no sample determined; `output.undetermined` shows where.
"""


def page() -> str:
    """Write the page."""
    found = [cards.card_of(name) for name in cards.names()]
    return "\n".join([HEAD, *_table(found), "", *(_section(card) for card in found)]).rstrip() + "\n"


def _table(found: list[Card]) -> list[str]:
    head = ["prior", "for", "is given besides the noisy image", "parameters", "training, hours", "licence of the data"]
    rows = [
        [f"[`{card.name}`](#{card.name})", _for(card), card.condition, f"{card.parameters / 1e6:.1f} M",
         f"{card.total_hours:.1f}", _licences(card)]
        for card in found
    ]  # fmt: skip
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _section(card: Card) -> str:
    psnr = {f"denoising PSNR, dB, at sigma {sigma:g}": f"{value:.2f}" for sigma, value in card.denoising_psnr.items()}
    asymmetry = {
        f"asymmetry of the Jacobian at sigma {sigma:g}": f"{value:.3f}"
        for sigma, value in card.jacobian_asymmetry.items()
    }
    low, high, unit = card.intensity_range.low, card.intensity_range.high, card.intensity_range.unit
    runs = "\n".join(f"1. `{run.command}` ({run.steps} steps, {run.hours:g} h)" for run in card.lineage)
    scale = f"{low:g} to {high:g} {unit}" if unit == "HU" else f"{low:g} to {high:g} times the {unit}"
    given = "the noisy image alone" if card.condition == "nothing" else f"the noisy image and {card.condition}"
    judge = "this prior itself" if card.familiarity is not None else f"`{card.judge}`"
    return "\n".join(
        [
            f"## {card.name}",
            "",
            f"The prior is for {'complex' if card.complex else 'real'} {KINDS[card.modality]} images; on its scale "
            f"-1 to 1 stands for {scale}. The network is given {given}. "
            f"It has {card.parameters:,} parameters, in levels of {', '.join(map(str, card.channels))} channels "
            f"with {card.blocks} blocks each; the weights are stored in half precision, sha256 `{card.sha256[:16]}`. "
            f"The familiarity of a result is judged by {judge}.",
            "",
            USE.format(kind=KINDS[card.modality]),
            "Training data:",
            "",
            *(f"- {data.file}: {data.licence}" for data in card.data),
            "",
            "Training runs, oldest first:",
            "",
            runs,
            "",
            "Evaluation, on tuning images that were never trained on:",
            "",
            "| measure | value |",
            "|---|---|",
            *(_row([name, value]) for name, value in {**psnr, **asymmetry}.items()),
            "",
            "Limits:",
            "",
            *(f"- {limit}" for limit in card.limits),
            "",
        ]
    )


def _for(card: Card) -> str:
    kind = KINDS[card.modality]
    if card.refines:
        return f"{kind}, super-resolution"
    if card.least_squares:
        return f"{kind}, few projections"
    return f"{kind} in HU" if card.intensity_range.unit == "HU" else f"{kind} in any unit"


def _licences(card: Card) -> str:
    return "; ".join(dict.fromkeys(data.licence for data in card.data))


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def main() -> None:
    """Print the page."""
    print(page(), end="")


if __name__ == "__main__":
    main()
