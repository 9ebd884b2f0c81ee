"""Commands ``recon bench``: benchmarks that a user can run on their own data."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from operators.errors import InputError
from recon.cli.options import new, slice_range
from recon.cli.show import console, table


def _rows(path: Path) -> object:
    return json.loads(path.read_text())["rows"]


Json = Annotated[Path | None, typer.Option("--json", callback=new(_rows), help="Also write the rows to this file.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Benchmarks on data of your own.")
    group.command()(operators)
    group.command()(solvers)
    group.command()(mri)
    group.command()(priors)
    group.command()(familiarity)
    group.command()(auto)
    group.command()(lesions)
    group.command()(coverage)
    group.command()(boundary)
    app.add_typer(group, name="bench")


def operators(
    size: Annotated[int, typer.Option(min=8, help="Pixels along each side of a slice.")] = 256,
    views: Annotated[int, typer.Option(min=1, help="Number of views.")] = 180,
    slices: Annotated[int, typer.Option(min=1, help="Number of slices.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; the fastest counts.")] = 5,
    cone: Annotated[bool, typer.Option("--cone", help="Projectors of whole volumes instead, size cubed.")] = False,
    json_file: Json = None,
) -> None:
    """Measure operators in milliseconds per slice: system matrix against ASTRA's projector, MRI off the grid and on."""
    if cone:
        _cone(size, views, repeats, json_file)
        return
    from recon.bench.operators import normal_operators
    from recon.bench.operators import operators as measure

    timings, built = measure(size, views, slices, repeats)
    rows = [
        [t.direction, f"{t.astra_ms:.1f}", f"{t.matrix_ms:.2f}", f"{t.speed_up:.1f}", f"{t.largest_difference:.1e}"]
        for t in timings
    ]
    title = f"{slices} slices of {size} x {size}, {views} views; matrix built once in {built:.1f} s; {machine()}"
    table(["direction", "ASTRA, ms", "matrix, ms", "times faster", "largest difference"], rows, title)
    normal = normal_operators(size, repeats=5 * repeats)
    table(
        ["coils", "Cartesian, ms", "spokes, ms", "ratio"],
        [[str(normal.coils), f"{normal.cartesian_ms:.1f}", f"{normal.radial_ms:.1f}", f"{normal.ratio:.2f}"]],
        f"Normal operator of MRI, {size} x {size}, one thread; {machine()}",
    )
    rows_of = [{**asdict(t), "speed_up": t.speed_up} for t in timings]
    write_rows(json_file, rows_of, normal={**asdict(normal), "ratio": normal.ratio})


def _cone(size: int, views: int, repeats: int, json_file: Path | None) -> None:
    """Measure the projectors of a whole volume in seconds."""
    from recon.bench.cone import PRODUCT, compare

    found = list(compare(size, views, repeats))
    rows = [
        [t.projector, f"{t.forward_s:.2f}", f"{t.adjoint_s:.2f}", "" if t.dot is None else f"{t.dot:.0e}"]
        for t in found
    ]
    title = f"{size}^3, {views} views of {size}^2, {found[0].threads} threads; a product of {PRODUCT}-square matrices"
    table(
        ["projector", "forward, s", "adjoint, s", "dot-product test"],
        rows,
        f"{title} takes {1e3 * found[0].matmul_s:.0f} ms; {machine()}",
    )
    write_rows(json_file, [asdict(t) for t in found])


def solvers(
    volume: Annotated[Path, typer.Argument(help="CT volume, NIfTI in HU.")],
    slices: Annotated[str, typer.Option(help="FIRST:LAST")],
    views: Annotated[str, typer.Option(help="Numbers of views, comma-separated.")] = "60",
    degrees: Annotated[
        float, typer.Option(min=1, max=360, help="Angle in degrees over which the views are spread.")
    ] = 180.0,
    photons_per_ray: Annotated[float | None, typer.Option(help="Photons per ray; noiseless when not given.")] = None,
    model: Annotated[str, typer.Option(help="Simulation of the data: realistic or ideal.")] = "realistic",
    every: Annotated[int, typer.Option(min=1, help="Take every N-th of the tuning slices (.npz).")] = 16,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "fbp,tv,red-diff",
    json_file: Json = None,
) -> None:
    """Compare methods on one simulated CT measurement: PSNR against the volume it was made from."""
    from recon.bench.solvers import compare, ct_measurement, simulation

    wanted = methods_of(methods)
    settings = simulation(model, photons_per_ray)
    rows = []
    for count in numbers(views, "views"):
        measurement = ct_measurement(volume, slice_range(slices), count, settings, every, degrees)
        for row in compare(measurement, count, wanted):
            rows.append(row)
            console.print(f"{row.views} views  {row.method}: {row.psnr:.2f} dB, {row.seconds:.1f} s", highlight=False)
    shown = [
        [str(r.views), r.method, f"{r.psnr:.2f}", f"{r.data_misfit:.5f}"]
        + [f"{seconds:.1f}" for seconds in (r.seconds, r.network_seconds)]
        for r in rows
    ]
    noise = "noiseless" if photons_per_ray is None else f"{photons_per_ray:g} photons per ray"
    table(
        ["views", "method", "PSNR, dB", "misfit", "seconds", "in the network"],
        shown,
        f"{volume.name} {slices}, {degrees:g} degrees, {model}, {noise}; {machine()}",
    )
    write_rows(json_file, [asdict(r) for r in rows])


def mri(
    data: Annotated[
        Path | None,
        typer.Argument(help="Magnitude volume (NIfTI) or measured k-space (.npy); default the sample."),
    ] = None,
    slices: Annotated[str, typer.Option(help="FIRST:LAST, of a volume.")] = "0:1",
    sampling: Annotated[str, typer.Option(help="PATTERNxACCELERATION, comma-separated.")] = "equispacedx4",
    noise: Annotated[float, typer.Option(help="Noise of k-space, a share of the largest image value.")] = 0.005,
    model: Annotated[str, typer.Option(help="realistic, or ideal, by the operator that reconstructs.")] = "realistic",
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "cg-sense,tv,l1-wavelet,red-diff",
    json_file: Json = None,
) -> None:
    """Compare MRI methods: PSNR on a simulated scan, or misfit of held-out samples of measured k-space."""
    from recon.bench import mri as bench
    from recon.samples import SAMPLES

    source = data or SAMPLES / "mri_brain_8coil.npy"
    wanted = methods_of(methods)
    rows = []
    if source.suffix == ".npy":
        cases = [("measured, held-out samples", bench.measured(source))]
    else:
        cases = []
        for case in sampling.split(","):
            settings = bench.sampling(case.strip(), noise, model)
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
    scan = source.name if source.suffix == ".npy" else f"{source.name} {slices}, {model}"
    table(["data", "method", "PSNR, dB", "held-out misfit", "seconds"], shown, f"{scan}; {machine()}")
    write_rows(json_file, [asdict(r) for r in rows])


def numbers(text: str, field: str) -> list[int]:
    """Positive whole numbers, comma-separated."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdigit() or int(part) == 0:
            raise InputError(f"{part!r} is no positive whole number", field=field, remedy="write them as 60,23,8")
    return [int(part) for part in parts]


def methods_of(text: str) -> list[dict[str, Any]]:
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
    bm3d: Annotated[bool, typer.Option(help="Compare with BM3D (2 s per slice; package bm3d).")] = True,
    engines: Annotated[bool, typer.Option(help="Compare only the engines that compute the network.")] = False,
    repeats: Annotated[int, typer.Option(help="Times that everything timed is repeated; the fastest counts.")] = 10,
    json_file: Json = None,
) -> None:
    """Compare priors: denoising PSNR on the tuning slices, never trained on, and the networks' speed."""
    from recon.bench import priors as bench
    from recon.priors import precision, registry
    from recon.samples import SAMPLES

    wanted = names or registry.names()
    if engines:
        measured = {name: bench.engines(name, repeats) for name in wanted}
        shown = [[name, way, f"{ms:.1f}"] for name, ways in measured.items() for way, ms in ways.items()]
        title = f"Batches of {bench.BATCH}, {precision.name()}; {machine()}"
        table(["prior", "computed by", "ms per slice"], shown, title)
        write_rows(json_file, [{"prior": name, "ms_per_slice": ways} for name, ways in measured.items()])
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
    table(["prior", "ms per slice", "GFLOP per slice", "GFLOP/s", "peak GFLOP/s", "share"], timed, title)
    write_rows(
        json_file,
        [asdict(r) for r in rows],
        speed=[{**asdict(s), "share_of_peak": s.share_of_peak} for s in speeds],
    )


def familiarity(
    volumes: Annotated[list[Path] | None, typer.Argument(help="NIfTI volumes of your own, judged too.")] = None,
    json_file: Json = None,
) -> None:
    """Measure familiarity of images to the priors: percentiles among slices like those trained on; 0 is unfamiliar."""
    from recon.bench import familiarity as bench

    rows = list(bench.familiarity(volumes or []))
    words = {True: "yes", False: "no", None: "-"}
    shown = [
        [r.prior, r.images, words[r.known], str(r.slices), f"{r.lowest:.1f}", f"{r.median:.1f}", f"{r.highest:.1f}"]
        for r in rows
    ]
    table(["prior", "images", "trained on such", "slices", "lowest", "median", "highest"], shown, machine())
    write_rows(json_file, [asdict(r) for r in rows])


class _Named(Protocol):
    """Case of a benchmark."""

    @property
    def name(self) -> str:
        """Its name."""


NamedCase = TypeVar("NamedCase", bound=_Named)


def _chosen_cases(cases: Sequence[NamedCase], only: str | None) -> list[NamedCase]:
    """Cases whose names contain a word of `only`, semicolon-separated; raises `InputError` if there is none."""
    found = [case for case in cases if only is None or any(word.strip() in case.name for word in only.split(";"))]
    if not found:
        names = "; ".join(case.name for case in cases)
        raise InputError(f"{only!r} is in the name of no case", field="only", remedy=f"choose from: {names}")
    return found


def _known_rows(out: Path | None) -> list[dict[str, Any]]:
    """Rows that a benchmark's file has from an earlier run."""
    return _known(out, "rows")


def _known(out: Path | None, part: str) -> list[dict[str, Any]]:
    """A list that a benchmark's file has from an earlier run."""
    found: list[dict[str, Any]] = json.loads(out.read_text())[part] if out is not None and out.exists() else []
    return found


def auto(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    only: Annotated[
        str | None, typer.Option(help="Cases whose names contain one of these, semicolon-separated.")
    ] = None,
    candidates: Annotated[str | None, typer.Option(help="Methods to choose from, comma-separated.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for a picture of each case that is run.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Rows as JSON; cases that it has are kept.")] = None,
) -> None:
    """Compare `method: auto` with its candidates: anatomies, objects and MRI, simulated realistically."""
    from recon.bench import auto as bench
    from recon.spec.methods import Auto, method_of

    names = None if candidates is None else [name.strip() for name in candidates.split(",")]
    settings = method_of({"name": "auto", "candidates": names})
    assert isinstance(settings, Auto)
    rows = [bench.Row(**row) for row in _known_rows(out)]
    for case in _chosen_cases(bench.cases(data), only):
        if case.name in {row.case for row in rows}:
            continue
        compared = bench.compare(case, settings)
        if pictures is not None:
            bench.picture(pictures, case.name, compared.slices)
        for row in compared.rows:
            rows.append(row)
            told = f"classical {row.best_classical:g}, best {row.best_single:g}, auto {row.auto:g} dB; {row.chosen}"
            console.print(f"{row.case}, {row.metric}: {told}", highlight=False)
        write_rows(out, [asdict(row) for row in rows])
    columns = ["case", "metric", "best classical", "best single", "auto", "chosen", "judging"]
    shown = [
        [r.case, r.metric, f"{r.best_classical:.2f}", f"{r.best_single:.2f}", f"{r.auto:.2f}", r.chosen,
         f"{r.overhead:.1f}"]
        for r in rows
    ]  # fmt: skip
    table(columns, shown, f"dB, {bench.SLICES} slices a case; {machine()}")
    if rows:
        console.print(bench.verdict(rows), highlight=False)


def lesions(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    only: Annotated[
        str | None, typer.Option(help="Cases whose names contain one of these, semicolon-separated.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods to run, comma-separated; all of a case when not given.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each case, of the methods that are run on it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Rows as JSON; methods of cases that it has are kept.")
    ] = None,
) -> None:
    """Put known lesions into volumes: contrast that each method recovers, lesions it invents, the smallest kept."""
    from recon.bench import lesions as bench

    chosen = _chosen_cases(bench.cases(data), only)
    offered = list(dict.fromkeys(method for case in chosen for method in case.methods))
    asked = offered if methods is None else [name.strip() for name in methods.split(",")]
    for name in asked:
        if name not in offered:
            raise InputError(
                f"{name!r} is no method of these cases", field="methods", remedy=f"choose from {', '.join(offered)}"
            )
    rows = [bench.Row(**row) for row in _known_rows(out)]
    for case in chosen:
        done = {row.method for row in rows if row.case == case.name}
        wanted = [method for method in case.methods if method in asked and method not in done]
        if not wanted:
            continue
        scan = case.scan()
        missing = bench.left_out(scan)
        if missing:
            console.print(f"{case.name}: no place for {'; '.join(missing)}", highlight=False)
        results = []
        for found in bench.compare(scan, wanted):
            results.append(found)
            rows.extend(bench.rows_of(case.name, scan, found))
            mean = sum(found.recovered) / len(found.recovered)
            told = f"{len(found.recovered)} lesions, {100 * mean:.0f} % of their contrast on average"
            console.print(f"{case.name}, {found.method}: {told}", highlight=False)
            write_rows(out, [asdict(r) for r in rows], smallest_kept=[asdict(s) for s in bench.smallest_kept(rows)])
        if pictures is not None:
            path = bench.picture(pictures, case.name, scan, results)
            console.print(str(path), highlight=False)
    columns = ["case", "lesion", "mm", "method", "contrast recovered", "false positives"]
    shown = [
        [r.case, r.lesion, f"{r.diameter_mm:g}", r.method, f"{r.contrast_recovered:.2f}",
         "-" if r.false_positives is None else f"{r.false_positives:.3f}"]
        for r in rows
    ]  # fmt: skip
    table(columns, shown, f"False positives: share of healthy sites; {machine()}")
    smallest: dict[tuple[str, str], dict[str, str]] = {}
    for one in bench.smallest_kept(rows):
        diameter = "-" if one.diameter_mm is None else f"{one.diameter_mm:g}"
        smallest.setdefault((one.case, one.lesion), {})[one.method] = diameter
    used = list(dict.fromkeys(row.method for row in rows))
    kept = [[*of, *(by.get(method, "") for method in used)] for of, by in smallest.items()]
    title = (
        f"Smallest diameter from which {100 * bench.KEPT:g} % of the contrast is kept, in mm; - if the largest is not"
    )
    table(["case", "lesion", *used], kept, title)


def machine() -> str:
    """Describe the machine in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores, {model}"


def write_rows(path: Path | None, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write rows and the machine's name as JSON, if a path is given."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": rows, **more}, indent=2) + "\n")


def coverage(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    only: Annotated[
        str | None, typer.Option(help="Cases whose names contain one of these, semicolon-separated.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Comma-separated; those that fit a scan are run.")] = "red-diff,tv",
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap replicates.")] = 4,
    observed: Annotated[
        Path | None, typer.Option(help="Folder for the errors of each case; those that it has are kept.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Rows as JSON; cases that it has are kept.")] = None,
) -> None:
    """Measure 90 % intervals of `output.uncertainty`: how many voxels of the object they hold, and their width."""
    from recon.bench import coverage as bench

    names = [name.strip() for name in methods.split(",")]
    rows = [bench.Row(**row) for row in _known_rows(out)]
    for case in _chosen_cases(bench.cases(data), only):
        if case.name in {row.case for row in rows}:
            continue
        seen = (
            list(bench.observe(case, names, replicates))
            if observed is None
            else bench.kept(observed, case, names, replicates)
        )
        rows += bench.rows_of(case.name, seen)
        write_rows(out, [asdict(row) for row in rows])
    shown = [
        [r.case, r.method, r.voxels, f"{100 * r.coverage:.1f} %", f"{r.width:.4g}",
         "-" if r.width_over_tv is None else f"{r.width_over_tv:.2f}"]
        for r in rows
    ]  # fmt: skip
    columns = ["case", "method", "voxels", "held", "width", "over TV's"]
    table(columns, shown, f"{replicates} replicates, {bench.SLICES} slices a case; {machine()}")


def boundary(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    only: Annotated[
        str | None, typer.Option(help="Cases whose names contain one of these, semicolon-separated.")
    ] = None,
    prior: Annotated[str | None, typer.Option(help="Conditional prior, or its card; default: the usual one.")] = None,
    regression: Annotated[
        str | None, typer.Option(help="Regression network to compare with, by its card; none when not given.")
    ] = None,
    planes: Annotated[int, typer.Option(min=1, help="Planes that are judged in each case.")] = 6,
    random: Annotated[int, typer.Option(min=0, help="Random noises to compare the frozen one with.")] = 12,
    pictures: Annotated[Path | None, typer.Option(help="Folder for pictures of the cases instead of rows.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Rows as JSON; methods of cases that it has are kept.")
    ] = None,
) -> None:
    """Compare super-resolution of MRI and CT stacks: `boundary` at every detail, other methods; or draw pictures."""
    from recon.bench import boundary as bench

    chosen = _chosen_cases(bench.cases(data), only)
    for case in chosen:
        bench.require_covered(case, prior)
    if pictures is not None:
        for case in chosen:
            console.print(str(bench.picture(pictures, case, prior)), highlight=False)
        return
    rows = [bench.Row(**row) for row in _known_rows(out)]
    gains = [bench.Gain(**gain) for gain in _known(out, "gains")]

    def keep() -> None:
        write_rows(out, [asdict(row) for row in rows], gains=[asdict(gain) for gain in gains])

    for case in chosen:
        case_bench = bench.Bench.of(case, planes, prior)
        for row in case_bench.rows({row.method for row in rows if row.task == case.name}, regression):
            rows.append(row)
            told = f"{row.psnr:.2f} dB, perceptual {row.perceptual:.4f}, sharpness {row.sharpness_ratio:.2f}"
            console.print(f"{case.name}, {row.method}: {told}, {row.seconds:.1f} s", highlight=False)
            keep()
        for steps in bench.FEW_STEPS if random > 1 and case.conditional else ():
            if not any(gain.task == case.name and gain.steps == steps for gain in gains):
                more, gain = case_bench.against_random(steps, random)
                rows += more
                gains.append(gain)
                keep()
    columns = ["task", "method", "PSNR, dB", "SSIM", "perceptual", "sharpness", "spectrum, dB", "spread", "NFE", "s"]
    shown = [
        [r.task, r.method, f"{r.psnr:.2f}", f"{r.ssim:.4f}", f"{r.perceptual:.4f}", f"{r.sharpness_ratio:.2f}",
         f"{r.spectrum_db:+.1f}", "-" if r.spread is None else f"{r.spread:.2f}", f"{r.nfe:g}", f"{r.seconds:.1f}"]
        for r in rows
    ]  # fmt: skip
    table(columns, shown, f"{planes} planes a task; {machine()}")
    for gain in gains:
        for name, values in (("PSNR in dB", gain.psnr), ("perceptual distance", gain.perceptual)):
            mean, low, high = bench.interval(values)
            told = f"{mean:+.4f} ({low:+.4f} to {high:+.4f}, 95 %), {len(values)} planes"
            console.print(f"{gain.task}, {gain.steps} steps, {gain.noise} noise gains, {name}: {told}", highlight=False)
