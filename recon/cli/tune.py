"""Command ``recon tune``: searches the default settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operators.errors import InputError
from recon.cli.show import console

if TYPE_CHECKING:
    from recon.defaults.table import Tuned


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)
    app.command()(tune_errors)
    app.command()(tune_effort)


def tune(
    data: Annotated[Path, typer.Option(help="Folder with the tuning files of the recipes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write, as recon/defaults/defaults.yaml.")],
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "tv,diffpir,red-diff,dds,diffusion-mbir",
    only: Annotated[str | None, typer.Option(help="Tasks, comma-separated; all when not given.")] = None,
    refine: Annotated[str, typer.Option(help="Search only these settings; others stay as installed.")] = "",
    prior: Annotated[str | None, typer.Option(help="Prior to search with, for methods that take one.")] = None,
) -> None:
    """Search each method's settings on the tuning slices, task by task; a table that exists is added to."""
    from recon.defaults.table import Table
    from recon.spec.methods import Diffusion
    from recon.spec.registry import METHODS
    from recon.tuning import search_settings as tuning

    wanted = tuning.named(only)
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        if name not in tuning.GRIDS:
            raise InputError(f"{name!r} is not one of {', '.join(tuning.GRIDS)}", field="methods")
    settings = [name.strip() for name in refine.split(",") if name.strip()]
    searched = {setting for name in names for setting in tuning.GRIDS[name]}
    for setting in settings:
        if setting not in searched:
            raise InputError(f"{setting!r} is not one of {', '.join(sorted(searched))}", field="refine")
    without = [name for name in names if not issubclass(METHODS[name], Diffusion)]
    if prior is not None and without:
        raise InputError(
            f"{without[0]} has no prior", field="methods", remedy="give methods that have one, as red-diff"
        )
    if not any(tuning.fitting(task, names) for task in wanted):
        raise InputError(
            f"{methods} fits the kind of scan of none of these tasks",
            field="only",
            remedy="name others, or none for all that fit",
        )
    table = Table.read(out) if out.is_file() else Table(command="", tuned=[])
    more = (f" --prior {prior}" if prior else "") + (f" --refine {','.join(settings)}" if settings else "")
    command = f"recon tune --data DATA --out recon/defaults/defaults.yaml --methods {methods}{more}"
    same = f"the same with --methods {methods}{more}"
    if {command, same} & set(table.command.split("; ")):
        command = table.command
    elif table.command:
        command = f"{table.command}; {same}"
    out.parent.mkdir(parents=True, exist_ok=True)
    for task in wanted:
        for found in tuning.tune(task, tuning.fitting(task, names), data, settings, prior):
            rest = [t for t in table.tuned if _what(t) != _what(found)]
            table = Table(command=command, tuned=[*rest, found])
            table.write(out)
            console.print(
                f"{found.task}, {found.method}: {found.psnr_before:.2f} dB, tuned {found.psnr:.2f} dB"
                f" with {found.settings}",
                highlight=False,
            )


def tune_errors(
    data: Annotated[Path, typer.Option(help="Folder with the tuning files of the recipes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write, as recon/defaults/errors.yaml.")],
    observed: Annotated[Path, typer.Option(help="Folder for the errors of each case; those that it has are kept.")],
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap replicates.")] = 4,
) -> None:
    """Fit uncertainty maps and 90 % intervals to true errors, on the tuning slices."""
    from recon.bench import coverage

    found = []
    for case in coverage.tuning_cases(data):
        found += coverage.kept(observed, case, coverage.METHODS, replicates)
        console.print(f"{case.name}: observed", highlight=False)
    table = coverage.table(
        found,
        f"recon tune-errors --data DATA --out recon/defaults/errors.yaml --observed FOLDER --replicates {replicates}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table.write(out)
    for one in table.fitted:
        console.print(f"{one.modality}, {one.errors_like}: interval {one.interval}", highlight=False)


def tune_effort(
    data: Annotated[Path, typer.Option(help="Folder with the tuning files of the recipes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write, as recon/defaults/effort.yaml.")],
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "diffpir,red-diff,dds,diffusion-mbir",
    kinds: Annotated[
        str, typer.Option(help="Kinds of scan, comma-separated.")
    ] = "ct,mri-cartesian,mri-superresolution,ct-superresolution",
) -> None:
    """Choose the settings of the efforts `draft` and `best`, and measure what they lose and gain on tuning slices."""
    from recon.defaults.effort import Efforts
    from recon.tuning import search_effort

    names = [name.strip() for name in methods.split(",")]
    table = Efforts.read(out) if out.is_file() else Efforts(command="")
    command = f"recon tune-effort --data DATA --out recon/defaults/effort.yaml --methods {methods}"
    wanted = [kind.strip() for kind in kinds.split(",")]
    for row in search_effort.search(data, names, kinds=wanted):
        what = (row.kind, row.method, row.effort)
        rest = [other for other in table.efforts if (other.kind, other.method, other.effort) != what]
        table = Efforts(command=command, efforts=[*rest, row])
        table.write(out)
        console.print(
            f"{row.kind}, {row.method}, {row.effort}: {row.mean_gain_db:+.2f} dB with {row.settings}", highlight=False
        )


def _what(found: Tuned) -> tuple[object, ...]:
    """Key of a table entry: kind, task, method and prior."""
    return found.kind, found.task, found.method, found.settings.get("prior")
