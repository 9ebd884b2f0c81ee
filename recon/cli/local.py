"""Commands that need no server: samples, run, batch, simulate, plan, inspect, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from operators.errors import InputError
from recon.cli.batch import batch
from recon.cli.importing import importing
from recon.cli.inspect import inspect
from recon.cli.options import Job, job_of, slice_range
from recon.cli.plan import plan
from recon.cli.samples import samples
from recon.cli.show import bar, console, errors, on_bar, summary, table
from recon.spec.job import JobSpec, local_files
from recon.spec.registry import ACQUISITIONS
from recon.spec.report import Report


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(samples)
    app.command()(run)
    app.command()(batch)
    app.command()(simulate)
    app.command()(plan)
    app.command()(inspect)
    app.command()(doctor)


def run(
    spec: Job,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Results; default results/NAME.")] = None,
) -> None:
    """Reconstruct one job on this machine."""
    job = job_of(spec)
    target = out or Path("results") / spec.stem
    with bar() as progress:
        report = _reconstruct(job, target, progress, spec.stem)
    console.print(f"{target}: {summary(report)}", highlight=False, soft_wrap=True)


def _reconstruct(job: JobSpec, target: Path, progress: Any, label: str) -> Report:
    files = local_files(job)
    _check(job, files, target)
    with importing():
        from recon.pipeline.reconstruct import run as reconstruct

    return reconstruct(job, files, target, on_bar(progress, label))


def _check(job: JobSpec, files: dict[str, Path], target: Path) -> None:
    """Check the job without torch first: importing it takes longer than reading most files twice."""
    with importing():
        from recon.formats import reader
        from recon.planning import plan as planning
        from recon.storage.atomic import check_new

    check_new(target)
    planning.require_fit(planning.make(job, reader.check(job, files)))


def simulate(
    volume: Annotated[
        Path, typer.Argument(help="NIfTI, DICOM (a folder), MetaImage or NRRD: CT in HU, or MRI magnitude.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Measurement to write, .h5.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(ACQUISITIONS)}.")] = "ct-parallel",
    views: Annotated[int, typer.Option(help="CT: number of views.")] = 60,
    photons_per_ray: Annotated[
        float | None, typer.Option(help="CT: photons per ray in air; noiseless by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="CT, k-space: realistic, as a scanner measures; or ideal, which flatters.")
    ] = None,
    electronic_noise: Annotated[
        float | None, typer.Option(help="CT: standard deviation of the electronic noise in photons.")
    ] = None,
    view_motion_rad: Annotated[
        float | None, typer.Option(help="CT: angle in radians by which the scanner turns during a view.")
    ] = None,
    tube_voltage_kv: Annotated[
        int | None, typer.Option(help="CT: X-ray tube voltage, 80, 100, 120 or 140 kV; monochromatic by default.")
    ] = None,
    scatter: Annotated[
        float | None, typer.Option(help="CT: scattered intensity, as a fraction of the beam's in air.")
    ] = None,
    gain_std: Annotated[
        float | None, typer.Option(help="CT: standard deviation of the relative errors of the elements' gain.")
    ] = None,
    rings: Annotated[
        int | None, typer.Option(help="CT: number of miscalibrated elements in a detector row, which draw rings.")
    ] = None,
    ring_gain: Annotated[
        float | None, typer.Option(help="CT: relative error of the gain of elements that draw rings.")
    ] = None,
    acceleration: Annotated[float, typer.Option(help="MRI: undersampling factor.")] = 4.0,
    pattern: Annotated[str, typer.Option(help="MRI: equispaced or poisson.")] = "equispaced",
    coils: Annotated[int, typer.Option(help="MRI: number of coils.")] = 8,
    noise_std: Annotated[
        float, typer.Option(help="MRI: standard deviation of the noise, as a fraction of the largest value.")
    ] = 0.0,
    phase_fov: Annotated[
        float | None, typer.Option(help="MRI: field of view along rows, as a fraction of the volume's.")
    ] = None,
    motion_pixels: Annotated[
        float | None, typer.Option(help="MRI: standard deviation of the displacement between readouts, in pixels.")
    ] = None,
    fat_shift_pixels: Annotated[float | None, typer.Option(help="MRI: chemical shift of fat in pixels.")] = None,
    factor: Annotated[
        float | None, typer.Option(help="mri-superresolution: factor by which the stack has less resolution.")
    ] = None,
    direction: Annotated[str | None, typer.Option(help="mri-superresolution: plane or slices.")] = None,
    slices: Annotated[str | None, typer.Option(help="Only slices FIRST:LAST.")] = None,
    scan: Annotated[str | None, typer.Option(help="Volume to take if there are several, as series=3,volume=0.")] = None,
    unit: Annotated[str | None, typer.Option(help="HU, where the volume neither says nor shows it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise, errors and sampling pattern.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Make an undersampled measurement from a volume, and a specification that reconstructs it."""
    from recon.formats import hdf5, reader
    from recon.storage.atomic import check_new

    if not out.name.endswith(hdf5.FORMAT.endings):
        raise InputError(f"{out.name} is written as HDF5", field="out", remedy="name it .h5")
    specification = out.with_suffix(".yaml")
    for path in (out, specification):
        check_new(path, replace=force, remedy="choose another name, or replace it by --force")
    settings: dict[str, Any] = {
        "seed": seed, "views": views, "photons_per_ray": photons_per_ray, "acceleration": acceleration,
        "pattern": pattern, "coils": coils, "noise_std": noise_std,
    }  # fmt: skip
    scanner = {
        "model": model, "electronic_noise": electronic_noise, "view_motion_rad": view_motion_rad,
        "tube_voltage_kv": tube_voltage_kv, "scatter": scatter, "gain_std": gain_std, "rings": rings,
        "ring_gain": ring_gain, "phase_fov": phase_fov, "motion_pixels": motion_pixels,
        "fat_shift_pixels": fat_shift_pixels,
    }  # fmt: skip
    settings |= {name: found for name, found in scanner.items() if found is not None}
    refined = {"factor": factor, "direction": direction}
    value: dict[str, Any] = {
        "input": {"path": str(volume), "scan": scan, "unit": unit, "simulate": settings},
        # What a kind does not have is refused where it is given, and left out where it is not.
        "acquisition": {"kind": kind, **{name: found for name, found in refined.items() if found is not None}},
        "method": "tv",
    }
    if slices is not None:
        value["input"]["slices"] = slice_range(slices)
    job = JobSpec.parse(value, "the options")
    measurement = reader.read(job, local_files(job))
    out.parent.mkdir(parents=True, exist_ok=True)
    hdf5.write_measurement(out, measurement)
    specification.write_text(yaml.safe_dump({"input": {"path": out.name, "format": "hdf5"}}, sort_keys=False))
    console.print(
        f"{out}: {measurement.data.shape} {measurement.data.dtype}; reconstruct it with: recon run {specification}",
        highlight=False,
        soft_wrap=True,
    )


def doctor() -> None:
    """Print versions and backends, and test every operator; exit status 1 if anything is broken."""
    from recon.cli.self_test import checks

    rows, broken = [], 0
    for check in checks():
        broken += not check.ok
        rows.append([check.name, "ok" if check.ok else "BROKEN", check.detail])
    table(["check", "state", "detail"], rows)
    console.print(f"{os.cpu_count()} cores; {'all is well' if not broken else f'{broken} checks failed'}")
    if broken:
        errors.print("error: see the table for what is broken")
        raise typer.Exit(1)
