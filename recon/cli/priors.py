"""Commands for priors: priors, train, export, search-noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
import yaml

from operators.errors import InputError
from recon.cli.options import new
from recon.cli.show import bar, console, table
from recon.priors.card import Card
from recon.spec.methods import CARD_ENDINGS

if TYPE_CHECKING:
    from recon.defaults.frozen_noise import Metric

Data = Annotated[
    Path, typer.Option(help="Folder with the recipe's files, or a user's own NIfTI volumes; unused for synthetic ones.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("priors")(show)
    app.command()(train)
    app.command()(export)
    app.command()(search_noise)


def show(
    name: Annotated[str | None, typer.Argument(help="Print this prior's whole card: a name, or a card's path.")] = None,
) -> None:
    """List the installed priors with their cards."""
    from recon.priors import registry

    if name is not None:
        _print(registry.card_of(name, field="name"))
        return
    rows, damaged = [], None
    for known in registry.names():
        try:
            card = registry.card_of(known, field="name")
            registry.check(card, registry.WEIGHTS / card.weights)
        except InputError as error:
            damaged = damaged or error
            rows.append([known, "", "", "", "", str(error)])
            continue
        psnr = ", ".join(f"{v:.1f} at {s:g}" for s, v in card.denoising_psnr.items())
        rows.append(
            [known, card.modality, f"{card.parameters / 1e6:.1f} M", f"{card.total_hours:.1f} h", psnr, card.limits[0]]
        )
    table(["prior", "modality", "parameters", "trained", "denoising PSNR in dB at sigma", "limit"], rows)
    if damaged is not None:
        raise damaged


def train(
    name: Annotated[str, typer.Argument(help="A shipped recipe (as ct), a recipe's YAML file, or a new name.")],
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, resumed if it exists; default runs/NAME.")
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="ct (HU) or mri (magnitude): train a new prior NAME on the NIfTI files of --data."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of training steps; default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and training data.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, as in training.crop=64 or blocks=3.")
    ] = None,
) -> None:
    """Train a prior: checkpointed every three minutes, resumed by the same command."""
    from recon.training.recipe import Recipe
    from recon.training.training import Trainer

    recipe = Recipe.named(name) if modality is None else Recipe.for_volumes(name, modality, data)
    recipe = recipe.with_settings(settings or [])
    trainer = Trainer(recipe, data, out or Path("runs") / recipe.name, seed, steps)
    if trainer.step >= trainer.steps:
        console.print(f"{trainer.step} steps are done already; export the run, or give more --steps", highlight=False)
    with bar() as progress:
        task = progress.add_task(f"train {recipe.name}", total=trainer.steps, completed=trainer.step, detail="")
        for p in trainer.run():
            progress.update(task, completed=p.step, detail=f"loss {p.loss:.3f}")
            if p.validation_psnr:
                text = ", ".join(f"{v:.2f} dB at {s:g}" for s, v in p.validation_psnr.items())
                console.print(f"step {p.step}, {p.seconds:.0f} s: {text}", highlight=False)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Data,
    command: Annotated[str, typer.Option(help="The training command, for the card.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and the card.")] = Path("priors"),
) -> None:
    """Write a run's averaged weights as fp16 safetensors, measure them on the tuning set, and write their card."""
    from recon.training import export as exporting

    card = exporting.export(run, data, command, out)
    _print(card)
    console.print(f"written: {out / card.name}.yaml, which a job's method.prior can name", highlight=False)


def _noise(path: Path) -> object:
    from recon.defaults.frozen_noise import NoiseFile

    return NoiseFile.read(path)


def search_noise(
    what: Annotated[
        str, typer.Argument(help="A conditional prior (as brain-mri-sr), or a job specification on a known volume.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", callback=new(_noise), help="File of starting noise to write, .yaml.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder with the files of the prior's recipe.")] = None,
    factors: Annotated[
        str | None,
        typer.Option(help="Factors of a prior's tasks, comma-separated; default 2, 3 and 4, as far as it has them."),
    ] = None,
    directions: Annotated[str, typer.Option(help="Directions of a prior's tasks, comma-separated.")] = "plane,slices",
    detail: Annotated[float, typer.Option(min=0, max=1, help="Detail of a prior's tasks.")] = 1.0,
    candidates: Annotated[int, typer.Option(min=2, help="Starting noises to try.")] = 32,
    slices: Annotated[int, typer.Option(min=2, help="Reference slices, of a prior's training data.")] = 12,
    metric: Annotated[
        str,
        typer.Option(
            help="sight (nrmse, perceptual and sharpness together), or nrmse, ssim, perceptual, sharpness alone."
        ),
    ] = "sight",
) -> None:
    """Search for the starting noise of a deterministic solver and freeze it; say whether that can help."""
    from recon.defaults.frozen_noise import METRICS
    from recon.spec.job import JobSpec, local_files
    from recon.spec.methods import Boundary
    from recon.tuning import search_noise as searching
    from recon.tuning import stacks

    if out.suffix not in CARD_ENDINGS:
        raise InputError(f"{out.name} does not end in .yaml", field="out", remedy="a job names it as *.yaml")
    out.parent.mkdir(parents=True, exist_ok=True)
    if metric not in METRICS:
        raise InputError(f"{metric!r} is not one of {', '.join(METRICS)}", field="metric")
    asked = f"--candidates {candidates} --metric {metric}"
    if what.endswith((".yaml", ".yml", ".json")) and data is None:
        job = JobSpec.read(Path(what))
        tasks = [searching.task_of_job(job, local_files(job))]
        command = f"recon search-noise {Path(what).name} {asked}"
    elif data is None:
        raise InputError("needed with a prior's name", field="data", remedy="give the folder of the recipe's files")
    else:
        wanted = [name.strip() for name in directions.split(",")]
        for name in wanted:
            if name not in stacks.DIRECTIONS:
                raise InputError(f"{name!r} is neither plane nor slices", field="directions")
        chosen = cast("list[stacks.Direction]", wanted)
        by = None if factors is None else real_numbers(factors, "factors")
        method = Boundary(detail=detail)
        tasks = searching.tasks_of_prior(what, data, slices, method, factors=by, directions=chosen)
        command = f"recon search-noise {what} --data DATA --directions {directions}"
        command += ("" if factors is None else f" --factors {factors}") + f" --detail {detail:g} --slices {slices} "
        command += asked
    found = searching.search_noise(tasks, range(candidates), cast("Metric", metric), command)
    found.write(out)
    errors = list(found.errors.values())
    a = found.analysis
    shares = [f"{part} {analysis.share:.3f}" for part, analysis in found.parts.items()]
    console.print(
        f"seed {found.seed}: {metric} {min(errors):.5f}, mean of {candidates} {sum(errors) / candidates:.5f}\n"
        f"the noise's share of the variance: {a.share:.3f}{''.join(f', {share}' for share in shares)} (below 0.1 a"
        f" search hardly pays); expected gain on new slices: {a.expected_gain:.5f}\nwritten: {out}",
        highlight=False,
    )


def real_numbers(text: str, field: str) -> list[float]:
    """Numbers, comma-separated; raises `InputError` for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{text!r} are no numbers", field=field, remedy="write them as 2,2.5,4") from error


def _print(card: Card) -> None:
    """Print the card as YAML, without the numbers that only programs read."""
    shown = card.model_dump()
    if card.familiarity is not None:
        shown["familiarity"] = {"reference": card.familiarity.reference}
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120))
