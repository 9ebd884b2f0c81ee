"""``recon bench``: the commands behind the figures in the documents."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from operators.errors import InputError
from recon.cli.local import slice_range
from recon.cli.show import console, errors, table

Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Benchmarks: what the documents quote is printed here.")
    group.command()(operators)
    group.command()(solvers)
    group.command()(mri)
    group.command()(priors)
    group.command()(familiarity)
    group.command()(boundary)
    group.command()(evaluations)
    group.command()(discrepancy)
    group.command()(uncertainty)
    group.command()(quality)
    group.command()(faults)
    app.add_typer(group, name="bench")


def operators(size: int = 256, views: int = 180, slices: int = 16, repeats: int = 5, json_file: Json = None) -> None:
    """Milliseconds a slice: the system matrix against ASTRA's own projector, slice by slice."""
    from recon.bench.operators import operators as measure

    timings, built = measure(size, views, slices, repeats)
    rows = [
        [t.direction, f"{t.astra_ms:.1f}", f"{t.matrix_ms:.2f}", f"{t.speed_up:.1f}", f"{t.largest_difference:.1e}"]
        for t in timings
    ]
    title = f"{slices} slices of {size} x {size}, {views} views; matrix built once in {built:.1f} s; {machine()}"
    table(["direction", "ASTRA, ms", "matrix, ms", "times faster", "largest difference"], rows, title)
    _write(json_file, [{**asdict(t), "speed_up": t.speed_up} for t in timings])


def solvers(
    volume: Annotated[Path, typer.Argument(help="CT volume, NIfTI in HU.")],
    slices: Annotated[str, typer.Option(help="FIRST:LAST")],
    views: Annotated[str, typer.Option(help="Numbers of views, comma-separated.")] = "60",
    degrees: Annotated[float, typer.Option(min=1, max=360, help="Over which the views are spread.")] = 180.0,
    photons: Annotated[float | None, typer.Option(help="Photons a ray; noiseless when not given.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Of the tuning slices (.npz), take one in so many.")] = 16,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "fbp,tv,red-diff",
    json_file: Json = None,
) -> None:
    """PSNR of methods on one simulated CT measurement, against the volume it was made from."""
    from recon.bench.solvers import compare, ct_measurement

    wanted = _methods(methods)
    rows = []
    for count in _numbers(views, "views"):
        measurement = ct_measurement(volume, slice_range(slices), count, photons, every, degrees)
        for row in compare(measurement, count, wanted):
            rows.append(row)
            console.print(f"{row.views} views  {row.method}: {row.psnr:.2f} dB, {row.seconds:.1f} s", highlight=False)
    shown = [
        [str(r.views), r.method, f"{r.psnr:.2f}", f"{r.data_misfit:.5f}"]
        + [f"{seconds:.1f}" for seconds in (r.seconds, r.network_seconds)]
        for r in rows
    ]
    noise = "noiseless" if photons is None else f"{photons:g} photons a ray"
    table(
        ["views", "method", "PSNR, dB", "misfit", "seconds", "in the network"],
        shown,
        f"{volume.name} {slices}, {degrees:g} degrees, {noise}; {machine()}",
    )
    _write(json_file, [asdict(r) for r in rows])


def mri(
    data: Annotated[
        Path | None,
        typer.Argument(help="Magnitude volume (NIfTI) or measured k-space (.npy); default the sample."),
    ] = None,
    slices: Annotated[str, typer.Option(help="FIRST:LAST, of a volume.")] = "0:1",
    sampling: Annotated[str, typer.Option(help="PATTERNxACCELERATION, comma-separated.")] = "uniformx4",
    noise: Annotated[float, typer.Option(help="Noise of k-space, a share of the largest image value.")] = 0.005,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "cg-sense,tv,l1-wavelet,red-diff",
    json_file: Json = None,
) -> None:
    """MRI methods: PSNR on a volume measured by simulation, or misfit of held-out samples of measured k-space."""
    from recon.bench import mri as bench
    from recon.samples import SAMPLES

    source = data or SAMPLES / "mri_brain_8coil.npy"
    wanted = _methods(methods)
    rows = []
    if source.suffix == ".npy":
        cases = [("measured, held-out samples", bench.measured(source))]
    else:
        cases = []
        for case in sampling.split(","):
            settings = bench.sampling(case.strip(), noise)
            cases.append((case.strip(), bench.simulated(source, slice_range(slices), settings)))
    for name, measurement in cases:
        for row in bench.compare(measurement, name, wanted):
            rows.append(row)
            judged = f"{row.psnr:.2f} dB" if row.psnr is not None else f"misfit {row.held_out_misfit:.4f}"
            console.print(f"{row.data}  {row.method}: {judged}, {row.seconds:.1f} s", highlight=False)
    shown = [
        [r.data, r.method, "-" if r.psnr is None else f"{r.psnr:.2f}",
         "-" if r.held_out_misfit is None else f"{r.held_out_misfit:.4f}", f"{r.seconds:.1f}"]
        for r in rows
    ]  # fmt: skip
    table(["data", "method", "PSNR, dB", "held-out misfit", "seconds"], shown, f"{source.name}; {machine()}")
    _write(json_file, [asdict(r) for r in rows])


def boundary(
    data: Annotated[Path, typer.Option(help="Folder with the files of the recipes.")],
    names: Annotated[list[str] | None, typer.Argument(help="Conditional priors; all when not given.")] = None,
    slices: Annotated[int, typer.Option(min=2, help="Held-out slices.")] = 16,
    random: Annotated[int, typer.Option(min=2, help="Random noises to compare with.")] = 16,
    json_file: Json = None,
) -> None:
    """Super-resolution by boundary conditions: against other methods, and the frozen noise against random ones."""
    from recon.bench import boundary as bench
    from recon.priors import registry

    wanted = names or [n for n in registry.names() if registry.card_of(n).super_resolution is not None]
    rows, gains = [], []
    directions: tuple[Literal["plane", "slices"], ...] = ("plane", "slices")
    for name in wanted:
        for direction in directions:
            rows += list(bench.compare(name, data, slices, direction))
            gains.append(bench.gain(name, data, slices, random, direction))
    table(
        ["prior", "direction", "method", "PSNR, dB", "SSIM", "evaluations"],
        [[r.prior, r.direction, r.method, f"{r.psnr:.2f}", f"{r.ssim:.4f}", f"{r.evaluations:.0f}"] for r in rows],
        f"{slices} slices of a held-out head; {machine()}",
    )
    for g in gains:
        console.print(
            f"{g.prior}, {g.direction}: NRMSE {g.nrmse_random:.5f} (mean of {g.random} random noises),"
            f" {g.nrmse_calibrated:.5f} (calibrated); gain {g.gain:.5f}, 95 % interval {g.low:.5f} to {g.high:.5f}"
            f" over {g.slices} slices",
            highlight=False,
        )
    _write(json_file, [asdict(r) for r in rows] + [asdict(g) for g in gains])


def evaluations(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    json_file: Json = None,
) -> None:
    """What skipping, starts, fewer steps, stopping early and second-order steps save and cost."""
    from recon.bench.evaluations import compare

    rows = []
    for row in compare(data):
        rows.append(row)
        console.print(f"{row.task}, {row.method}, {row.variant}: {row.psnr:.2f} dB, {row.nfe:g}", highlight=False)
    shown = [[r.task, r.method, r.variant, f"{r.psnr:.2f}", f"{r.nfe:g}", f"{r.seconds:.1f}"] for r in rows]
    title = f"Three slices of the tuning set; {machine()}"
    table(["task", "method", "variant", "PSNR, dB", "evaluations a slice", "seconds"], shown, title)
    _write(json_file, [asdict(r) for r in rows])


def discrepancy(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    json_file: Json = None,
) -> None:
    """How the tuned share of the noise compares with what the discrepancy principle would choose."""
    from recon.bench.discrepancy import compare

    rows = list(compare(data))
    shown = [
        [r.task, f"{r.noise_share:g}{', tuned' if r.tuned else ''}", f"{r.discrepancy:.2f}", f"{r.psnr:.2f}"]
        for r in rows
    ]
    title = f"RED-Diff on three slices of the tuning set; {machine()}"
    table(["task", "noise share", "residual over noise", "PSNR, dB"], shown, title)
    _write(json_file, [asdict(r) for r in rows])


def uncertainty(
    data: Annotated[Path, typer.Option(help="Folder with the tuning set.")],
    only: Annotated[str | None, typer.Option(help="Tasks of `recon tune`, comma-separated.")] = None,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "red-diff",
    replicas: Annotated[int, typer.Option(min=1, max=64)] = 4,
    json_file: Json = None,
) -> None:
    """Maps of the errors to be expected (``output.uncertainty``) against the errors that were made."""
    from recon.bench.uncertainty import compare
    from recon.tune import named

    rows = []
    for row in compare(data, named(only), _methods(methods), replicas):
        rows.append(row)
        console.print(f"{row.task}, {row.method}: {row.error_over_uncertainty}, {row.within_two:.1%}", highlight=False)
    shown = [[f"{v:.1%}" if k.startswith("within") else str(v) for k, v in asdict(r).items()] for r in rows]
    columns = ["task", "method", "replicas", "PSNR, dB", "error over map", "rank correlation", "within map", "twice"]
    table(columns, shown, machine())
    _write(json_file, [asdict(r) for r in rows])


def quality(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for quality.json, quality.md and pictures.")],
    slices: Annotated[int, typer.Option(min=1, help="Slices of each volume.")] = 8,
    only: Annotated[
        str | None, typer.Option(help="Tasks whose names contain one of these, semicolon-separated.")
    ] = None,
    slow: Annotated[bool, typer.Option(help="Also methods of thousands of evaluations a slice.")] = False,
    others: Annotated[
        bool, typer.Option("--peers", help="Also other people's solvers; needs the extra `peers`.")
    ] = False,
) -> None:
    """Every method on the test volumes with the defaults a user gets; tasks done before are kept."""
    from recon.bench import quality as bench
    from recon.bench import quality_report

    report = quality_report.Report(out, machine(), slices)
    for task in bench.chosen(bench.tasks(data, slices, slow=slow, others=others), only):
        left = report.missing(task)
        if not left.methods:
            continue
        for row, volume, measurement in bench.compare(left):
            told = f"{row.psnr:.2f} dB" if row.psnr is not None else f"withheld misfit {row.withheld_misfit:.4f}"
            console.print(f"{row.task}, {row.method}: {told}, {row.seconds:.1f} s", highlight=False)
            report.add(row, volume, measurement)
        report.finish(task)


def _numbers(text: str, field: str) -> list[int]:
    """Positive whole numbers, comma-separated."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdigit() or int(part) == 0:
            raise InputError(f"{part!r} is no positive whole number", field=field, remedy="write them as 60,23,8")
    return [int(part) for part in parts]


def _methods(text: str) -> list[dict[str, Any]]:
    """Method settings from a JSON list, or from names alone."""
    if text.startswith("["):
        try:
            found: list[dict[str, Any]] = json.loads(text)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", field="methods") from error
        return found
    return [{"name": name.strip()} for name in text.split(",")]


def priors(
    names: Annotated[list[str] | None, typer.Argument(help="Priors; all that are installed when not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of tuning files; without it the slices shipped.")] = None,
    bm3d: Annotated[bool, typer.Option(help="Compare with BM3D (2 s a slice; package bm3d).")] = True,
    engines: Annotated[bool, typer.Option(help="Only what computes the network, one against the other.")] = False,
    repeats: Annotated[int, typer.Option(help="Times that everything timed is repeated; the fastest counts.")] = 10,
    json_file: Json = None,
) -> None:
    """Denoising PSNR on the tuning slices, never trained on, and the networks' speed."""
    from recon.bench import priors as bench
    from recon.priors import precision, registry
    from recon.samples import SAMPLES

    wanted = names or registry.names()
    if engines:
        measured = {name: bench.engines(name, repeats) for name in wanted}
        shown = [[name, way, f"{ms:.1f}"] for name, ways in measured.items() for way, ms in ways.items()]
        title = f"Batches of {bench.BATCH}, {precision.name()}; {machine()}"
        table(["prior", "computed by", "ms a slice"], shown, title)
        _write(json_file, [{"prior": name, "ms_per_slice": ways} for name, ways in measured.items()])
        return
    if bm3d:
        bench.require_bm3d()
    speeds = [bench.speed(name, repeats) for name in wanted]  # first, while nothing has warmed the machine
    rows = []
    for row in bench.denoising(wanted, data or SAMPLES, with_bm3d=bm3d):
        rows.append(row)
        console.print(f"{row.prior} at sigma {row.sigma:g}: {row.psnr:.2f} dB", highlight=False)
    shown = [
        [r.prior, f"{r.sigma:g}", f"{r.psnr_noisy:.2f}", "-" if r.psnr_bm3d is None else f"{r.psnr_bm3d:.2f}",
         f"{r.psnr:.2f}", "-" if r.psnr_bm3d is None else f"{r.psnr - r.psnr_bm3d:+.2f}"]
        for r in rows
    ]  # fmt: skip
    title = "PSNR in dB on tuning slices that fill [-1, 1]; MRI: of the magnitude"
    table(["prior", "sigma", "noisy", "BM3D", "prior", "gain"], shown, title)
    timed = [
        [s.prior, f"{s.ms_per_slice:.1f}", f"{s.gflop_per_slice:.1f}", f"{s.gflop_per_s:.0f}",
         f"{s.peak_gflop_per_s:.0f}", f"{100 * s.share_of_peak:.0f} %"]
        for s in speeds
    ]  # fmt: skip
    title = f"Slices of {bench.SIZE} x {bench.SIZE} in batches of {bench.BATCH}, {precision.name()}; {machine()}"
    table(["prior", "ms a slice", "GFLOP a slice", "GFLOP/s", "peak GFLOP/s", "share"], timed, title)
    _write(
        json_file,
        [asdict(r) for r in rows],
        speed=[{**asdict(s), "share_of_peak": s.share_of_peak} for s in speeds],
    )


def familiarity(
    volumes: Annotated[list[Path] | None, typer.Argument(help="NIfTI volumes of your own, judged too.")] = None,
    json_file: Json = None,
) -> None:
    """What the priors find familiar: a percentile among slices of the kind each was trained on; near 0 is unseen."""
    from recon.bench import familiarity as bench

    rows = list(bench.familiarity(volumes or []))
    words = {True: "yes", False: "no", None: "-"}
    shown = [
        [r.prior, r.images, words[r.known], str(r.slices), f"{r.lowest:.1f}", f"{r.median:.1f}", f"{r.highest:.1f}"]
        for r in rows
    ]
    table(["prior", "images", "trained on such", "slices", "lowest", "median", "highest"], shown, machine())
    _write(json_file, [asdict(r) for r in rows])


def faults(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for reliability.md and reliability.json.")],
    only: Annotated[str | None, typer.Option(help="Scenarios, comma-separated; all when not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of the batch whose workers are killed.")] = 50,
    kills: Annotated[int, typer.Option(min=0)] = 20,
    submitters: Annotated[int, typer.Option(min=1)] = 200,
    queued: Annotated[int, typer.Option(min=1)] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Submissions a second.")] = 50,
    requests: Annotated[int, typer.Option(min=100)] = 10_000,
    iterations: Annotated[int, typer.Option(min=1, help="Of jobs that take their time.")] = 150,
    settle_s: Annotated[float, typer.Option(help="Patience with the jobs of one scenario.")] = 400.0,
    keep: Annotated[Path | None, typer.Option(help="Keep stores and logs in this new folder.")] = None,
) -> None:
    """Break a deployment in every way and count what it lost; exit status 1 unless every target is met.

    With --only, the other scenarios of a report that exists are kept, if it is of the same scale.
    """
    import tempfile
    from datetime import UTC, datetime

    from recon.bench import reliability
    from recon.bench.faults import Scale

    scale = Scale(jobs, kills, submitters, queued, rate, requests, iterations, settle_s)
    outcomes = []
    wanted = None if only is None else [name.strip().replace("-", "_") for name in only.split(",")]
    with tempfile.TemporaryDirectory(prefix="recon-faults-") as temporary:
        for outcome in reliability.scenarios(keep or Path(temporary), scale, wanted):
            outcome.at = datetime.now(UTC).isoformat(timespec="minutes")
            outcomes.append(outcome)
            console.print(
                f"{outcome.name}: {outcome.accepted} accepted, {outcome.finished} finished, {outcome.lost} lost,"
                f" {outcome.duplicated} duplicated, {outcome.corrupted} corrupted, {outcome.faults} faults,"
                f" {outcome.seconds:.0f} s {outcome.measured or ''}",
                highlight=False,
            )
    if wanted is not None:
        outcomes = reliability.merged(out, outcomes, scale)
    reliability.write(out, outcomes, scale, machine())
    missed = reliability.failures(outcomes)
    for line in missed:
        errors.print(f"missed: {line}", highlight=False)
    if missed:
        raise typer.Exit(1)


def machine() -> str:
    """The machine, in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores, {model}"


def _write(path: Path | None, rows: list[dict[str, Any]], **more: Any) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": rows, **more}, indent=2) + "\n")
