"""Commands about priors: priors, train, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon.cli.show import bar, console, table


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("priors")(show)
    app.command()(train)
    app.command()(export)


def show() -> None:
    """List the installed priors with their cards."""
    from recon.priors import registry

    rows = []
    for name in registry.names():
        card = registry.load(name).card
        psnr = ", ".join(f"{v:.1f} at {s:g}" for s, v in card.denoising_psnr.items())
        rows.append(
            [name, card.modality, f"{card.parameters / 1e6:.1f} M", f"{card.hours:.1f} h", psnr, card.limits[0]]
        )
    table(["prior", "modality", "parameters", "trained", "denoising PSNR in dB at sigma", "limit"], rows)


def train(
    name: Annotated[str, typer.Argument(help="Recipe: ct or brain-mri.")],
    data: Annotated[Path, typer.Option(help="Folder with the recipe's files.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, resumed if it exists; default runs/NAME.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: int = 0,
) -> None:
    """Train a prior: checkpointed every three minutes, resumed by the same command."""
    from recon.priors.recipe import Recipe
    from recon.priors.training import Trainer

    trainer = Trainer(Recipe.named(name), data, out or Path("runs") / name, seed, steps)
    with bar() as progress:
        task = progress.add_task(f"train {name}", total=trainer.steps, completed=trainer.step, detail="")
        for p in trainer.run():
            progress.update(task, completed=p.step, detail=f"loss {p.loss:.3f}")
            if p.validation_psnr:
                text = ", ".join(f"{v:.2f} dB at {s:g}" for s, v in p.validation_psnr.items())
                console.print(f"step {p.step}, {p.seconds:.0f} s: {text}", highlight=False)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    command: Annotated[str, typer.Option(help="The training command, for the card.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: the installed package.")] = None,
) -> None:
    """Write a run's averaged weights as fp16 safetensors with a card."""
    from recon.priors import registry

    card = registry.export(run / "checkpoint.pt", command, out or registry.WEIGHTS)
    console.print(f"{card.weights}: {card.parameters / 1e6:.1f} M parameters, {card.steps} steps", highlight=False)
