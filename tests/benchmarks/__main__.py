"""``python -m tests.benchmarks``: the commands behind the figures in the documents, run from a checkout."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from recon.cli.bench import Json, machine, methods_of, write_rows
from recon.cli.main import report_errors
from recon.cli.show import console, table

app = typer.Typer(no_args_is_help=True, help="Benchmarks behind the documents.")


def evaluations(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    json_file: Json = None,
) -> None:
    """What skipping, starts, fewer steps, stopping early and second-order steps save and cost."""
    from tests.benchmarks.evaluations import compare

    rows = []
    for row in compare(data):
        rows.append(row)
        console.print(f"{row.task}, {row.method}, {row.variant}: {row.psnr:.2f} dB, {row.nfe:g}", highlight=False)
    shown = [[r.task, r.method, r.variant, f"{r.psnr:.2f}", f"{r.nfe:g}", f"{r.seconds:.1f}"] for r in rows]
    title = f"Three slices of the tuning set; {machine()}"
    table(["task", "method", "variant", "PSNR, dB", "evaluations a slice", "seconds"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def discrepancy(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    json_file: Json = None,
) -> None:
    """How the tuned share of the noise compares with what the discrepancy principle would choose."""
    from tests.benchmarks.discrepancy import compare

    rows = list(compare(data))
    shown = [
        [r.task, f"{r.noise_fraction:g}{', tuned' if r.tuned else ''}", f"{r.discrepancy:.2f}", f"{r.psnr:.2f}"]
        for r in rows
    ]
    title = f"RED-Diff on three slices of the tuning set; {machine()}"
    table(["task", "noise share", "residual over noise", "PSNR, dB"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def pixels(
    volume: Annotated[Path, typer.Option(help="Known CT volume in HU, at its full resolution.")],
    slices: Annotated[str | None, typer.Option(help="Only slices FIRST:LAST.")] = None,
    factors: Annotated[str, typer.Option(help="How many times as large pixels are, comma-separated.")] = "1,2,3,4",
    photons_per_ray: Annotated[float, typer.Option(help="Photons per ray in air.")] = 1e5,
    field_mm: Annotated[float | None, typer.Option(help="Side of the square in the middle that is used.")] = None,
    json_file: Json = None,
) -> None:
    """RED-Diff against TV on the same anatomy at several pixel sizes, as many views as columns ask for."""
    from recon.cli.bench import numbers
    from recon.cli.options import slice_range
    from tests.benchmarks.pixels import compare, gains

    rows = []
    chosen = None if slices is None else slice_range(slices)
    for row in compare(volume, chosen, numbers(factors, "factors"), photons_per_ray, field_mm):
        rows.append(row)
        console.print(f"{row.pixel_mm:g} mm, {row.method}: {row.psnr:.2f} dB, {row.seconds:.1f} s", highlight=False)
    shown = [[f"{v:g}" for v in found[:3]] + [f"{v:.2f}" for v in found[3:]] for found in gains(rows)]
    columns = ["pixel, mm", "columns", "views", "TV", "RED-Diff", "gain", "TV inside", "RED-Diff inside", "gain inside"]
    table(columns, shown, f"{volume.name}, {photons_per_ray:g} photons per ray, dB; {machine()}")
    write_rows(json_file, [asdict(row) for row in rows])


def stacks(
    data: Annotated[Path, typer.Option(help="Folder with test/ and raw/.")],
    methods: Annotated[
        str | None, typer.Option(help="JSON list of method settings, or names, comma-separated. Default: ours and TV.")
    ] = None,
    json_file: Json = None,
) -> None:
    """A slice alone and in a stack of unlike ones."""
    from tests.benchmarks.stacks import METHODS, compare

    rows = []
    for row in compare(data, METHODS if methods is None else methods_of(methods)):
        rows.append(row)
        console.print(
            f"{row.case}, {row.noise}, {row.method}: alone {row.alone:g}, in the stack {row.stacked:g}", highlight=False
        )
    shown = [[r.case, r.noise, r.method, f"{r.alone:g}", f"{r.stacked:g}"] for r in rows]
    title = f"PSNR in dB, misfit of withheld samples of the brain; {machine()}"
    table(["case", "noise", "method", "alone", "in the stack"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def preparation(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    slices: Annotated[int, typer.Option(min=1, help="Slices of the tuning set.")] = 3,
    views: Annotated[int, typer.Option(min=11, help="Views over half a turn.")] = 180,
    photons: Annotated[float, typer.Option(min=100, help="Photons per ray in air.")] = 2e4,
    json_file: Json = None,
) -> None:
    """What 1 % dead elements, zingers in a tenth of the frames and three lost frames cost after their preparation."""
    from tests.benchmarks.preparation import compare

    rows = []
    for row in compare(data, slices, views, photons):
        rows.append(row)
        console.print(f"{row.method}, slice {row.slice}: {row.loss_db:.2f} dB", highlight=False)
    shown = [[r.method, str(r.slice), f"{r.clean_psnr:.2f}", f"{r.damaged_psnr:.2f}", f"{r.loss_db:.2f}"] for r in rows]
    title = f"{views} views, {photons:g} photons per ray; {machine()}"
    table(["method", "slice", "clean, dB", "damaged and prepared, dB", "loss, dB"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def stripes(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    slices: Annotated[int, typer.Option(min=1, help="Slices of the tuning set.")] = 2,
    views: Annotated[int, typer.Option(min=11, help="Views over half a turn.")] = 180,
    photons: Annotated[float, typer.Option(min=100, help="Photons per ray in air.")] = 2e4,
    spread: Annotated[float, typer.Option(min=0, help="Drift of the elements' gains, relative.")] = 0.01,
    json_file: Json = None,
) -> None:
    """What every filter of stripes gains where there are some, and costs where there are none."""
    from tests.benchmarks.preparation import stripes as compare

    rows = []
    for row in compare(data, slices, views, photons, spread):
        rows.append(row)
        console.print(f"{row.stripes}, {row.method}: {row.clean_psnr}, {row.striped_psnr} dB", highlight=False)
    shown = [[r.stripes or "none", r.method, f"{r.clean_psnr:.2f}", f"{r.striped_psnr:.2f}"] for r in rows]
    title = f"{slices} slices, {views} views, {photons:g} photons per ray, gains drifted by {spread:g}; {machine()}"
    table(["stripes", "method", "clean, dB", "striped, dB"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def samples(
    out: Annotated[Path, typer.Option(help="Picture to write, .png.")],
    prior: Annotated[str, typer.Option(help="A prior of synthetic objects.")] = "objects",
    count: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 8,
    side: Annotated[int, typer.Option(min=32, help="Rows and columns.")] = 128,
    steps: Annotated[int, typer.Option(min=2, help="Noise levels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the noise, and of the generator.")] = 30_000,
) -> None:
    """What the prior of objects draws by itself, beside what the generator makes."""
    from tests.benchmarks.samples import picture

    picture(out, prior, count, side, steps, seed)
    console.print(str(out), highlight=False)


def coils(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    noise: Annotated[float, typer.Option(min=0, help="Noise relative to the image's largest value.")] = 0.02,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "cg-sense,l1-wavelet,tv,red-diff",
    size: Annotated[int, typer.Option(min=32, help="Rows and columns of the image.")] = 64,
    json_file: Json = None,
) -> None:
    """What one coil forty times as noisy, and noise that coils share, cost: as measured and made white."""
    from tests.benchmarks.coils import compare

    rows = []
    for row in compare(data, noise, methods_of(methods), size):
        rows.append(row)
        console.print(f"{row.noise}, maps {row.maps}, {row.way}, {row.method}: {row.loss_db:.2f} dB", highlight=False)
    shown = [[r.noise, r.maps, r.way, r.method, f"{r.psnr:.2f}", f"{r.loss_db:.2f}"] for r in rows]
    title = f"Loss against a scan of as much information, noise {noise:g}; {machine()}"
    table(["noise", "maps", "known by", "method", "PSNR, dB", "loss, dB"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def compression(
    data: Annotated[Path, typer.Option(help="Folder with tune/.")],
    number: Annotated[int, typer.Option(min=0, help="Slice of the tuning set.")] = 7,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "cg-sense,tv,red-diff",
    json_file: Json = None,
) -> None:
    """Coils combined to the fewest that keep their energy: PSNR and time of 12 and 32 coils."""
    from tests.benchmarks.compression import compare

    rows = []
    for row in compare(data, number, methods_of(methods)):
        rows.append(row)
        console.print(f"{row.coils} coils, {row.solved_with} of them, {row.method}: {row.psnr:.2f} dB", highlight=False)
    shown = [
        [str(r.coils), f"{r.kept_energy:g}", str(r.solved_with), r.method, f"{r.psnr:.2f}", f"{r.seconds:.1f}"]
        for r in rows
    ]
    table(["coils", "kept", "solved with", "method", "PSNR, dB", "s"], shown, machine())
    write_rows(json_file, [asdict(r) for r in rows])


def readout(
    data: Annotated[Path, typer.Option(help="Folder with test/.")],
    size: Annotated[int, typer.Option(min=24, max=192, help="Slices, rows and columns of the volume.")] = 96,
    binning: Annotated[int, typer.Option(min=1, max=4, help="Voxels of the head that are averaged along each.")] = 2,
    readouts: Annotated[str, typer.Option(help="Axes that are read out, comma-separated.")] = "slices,rows",
    acceleration: Annotated[float, typer.Option(min=1, help="Undersampling of both phase encodings.")] = 4.0,
    methods: Annotated[
        str | None, typer.Option(help="JSON list of method settings, or names, comma-separated. Default: ours and TV.")
    ] = None,
    json_file: Json = None,
) -> None:
    """3D k-space: the prior in axial slices, whatever was read out, against planes across the readout."""
    from recon.spec.acquisitions.kspace import AXES
    from tests.benchmarks.readout import METHODS, compare

    wanted = [axis for axis in AXES if axis in readouts.split(",")]
    rows = []
    for row in compare(data, size, binning, wanted, acceleration, METHODS if methods is None else methods_of(methods)):
        rows.append(row)
        console.print(f"readout {row.readout}, {row.method}, {row.planes}: {row.psnr:.2f} dB", highlight=False)
    shown = [[r.readout, r.method, r.planes, f"{r.psnr:.2f}", f"{r.seconds:.0f}"] for r in rows]
    title = f"{size} cubed, binning {binning}, Poisson disc x{acceleration:g}; {machine()}"
    table(["readout", "method", "planes", "PSNR, dB", "s"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def mri_measured(
    data: Annotated[Path, typer.Option(help="Folder with raw/ and formats/.")],
    methods: Annotated[
        str | None, typer.Option(help="JSON list of method settings, or names, comma-separated. Default: the usual.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Scans whose names contain this.")] = None,
    json_file: Json = None,
) -> None:
    """MRI methods on measured k-space, by samples that they were not given or by the fully sampled scan."""
    from tests.benchmarks import mri_measured as bench

    rows = []
    chosen = methods_of(methods or ",".join(bench.METHODS))
    for case in bench.cases(data):
        if only is not None and only not in case.data:
            continue
        for row in bench.compare(case, chosen):
            rows.append(row)
            told = "-" if row.value is None else f"{row.value:.2f} dB"
            console.print(f"{row.data}, {row.pattern}, {row.method}, {row.judged_by}: {told}", highlight=False)
    shown = [["-" if v is None else str(v) for v in asdict(row).values()] for row in rows]
    table(["data", "pattern", "method", "judged by", "value, dB"], shown, machine())
    write_rows(json_file, [asdict(row) for row in rows])


def quality(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for quality.json, quality.md and pictures.")],
    slices: Annotated[int, typer.Option(min=1, help="Slices of each volume.")] = 8,
    only: Annotated[
        str | None, typer.Option(help="Tasks whose names contain one of these, semicolon-separated.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Only these of each task's methods, comma-separated.")] = None,
    ideal: Annotated[bool, typer.Option(help="Also what is measured with the operator that reconstructs.")] = True,
    slow: Annotated[bool, typer.Option(help="Also methods of thousands of evaluations a slice.")] = False,
    others: Annotated[
        bool, typer.Option("--peers", help="Also other people's solvers; needs the extra `peers`.")
    ] = False,
) -> None:
    """Every method on the test volumes with the defaults a user gets; tasks done before are kept."""
    from tests.benchmarks import quality as bench
    from tests.benchmarks import quality_report

    report = quality_report.Report(out, machine(), slices)
    for task in bench.chosen(bench.tasks(data, slices, slow=slow, others=others), only, methods):
        if task.name.endswith(bench.IDEAL) and not ideal:
            continue
        left = report.missing(task)
        if not left.methods:
            continue
        for row, volume, measurement in bench.compare(left):
            told = f"{row.psnr:.2f} dB" if row.psnr is not None else f"withheld misfit {row.withheld_misfit:.4f}"
            console.print(f"{row.task}, {row.method}: {told}, {row.seconds:.1f} s", highlight=False)
            report.add(row, volume, measurement)
        report.finish(task)


def support(
    data: Annotated[Path, typer.Option(help="Folder with tune/ and test/.")],
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "tv,red-diff",
    views: Annotated[str, typer.Option(help="Numbers of views, comma-separated.")] = "8,23,60",
    photons_per_ray: Annotated[float, typer.Option(help="Photons per ray in air; 0 for no noise.")] = 1e5,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each object.")] = 3,
    test: Annotated[bool, typer.Option("--test", help="The test volumes in place of the tuning set.")] = False,
    json_file: Json = None,
) -> None:
    """What is known of the air beside a patient, and what it brings: chests, and heads on holders and tables."""
    from recon.cli.bench import numbers
    from tests.benchmarks.support import compare

    rows = []
    counts, photons = numbers(views, "views"), photons_per_ray or None
    for row in compare(data, methods_of(methods), counts, photons, slices, test=test):
        rows.append(row)
        console.print(
            f"{row.object}, {row.views} views, {row.method}, support {row.support}: {row.psnr:.2f} dB, inside"
            f" {row.psnr_inside:.2f}, beside {row.psnr_beside:.2f}, {row.known_air:.0%} known, {row.seconds:.1f} s",
            highlight=False,
        )
    shown = [[str(v) for v in asdict(row).values()] for row in rows]
    columns = [
        "object",
        "views",
        "method",
        "support",
        "slices",
        "PSNR, dB",
        "inside",
        "beside",
        "known",
        "cut off",
        "s",
    ]
    table(columns, shown, f"{photons_per_ray:g} photons per ray; {machine()}")
    write_rows(json_file, [asdict(row) for row in rows])


def startup(repeats: Annotated[int, typer.Argument(min=1, help="Runs of each case.")] = 5) -> None:
    """Start-up of the command line: seconds of fresh processes, against importing torch alone."""
    from tests.benchmarks.startup import medians

    found = medians(repeats)
    torch = found["import torch"]
    shown = [[case, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / torch[1]:.2f}"] for case, (wall, cpu) in found.items()]
    table(["case", "wall s", "CPU s", "CPU / torch"], shown, f"Median of {repeats}; {machine()}")


def streaming(
    slices: Annotated[list[int] | None, typer.Argument(help="Numbers of slices; 64, 256, 1024 when not given.")] = None,
    method: Annotated[str, typer.Option(help="Method by its name.")] = "fbp",
    output: Annotated[str, typer.Option(help="Format of the result.")] = "nii",
    folder: Annotated[Path | None, typer.Option(help="Folder for the files, on a disk that is large enough.")] = None,
    json_file: Json = None,
) -> None:
    """Peak memory of jobs that are read, solved and written slab by slab, by the number of slices."""
    from tests.benchmarks.streaming import SIDE, VIEWS, compare

    rows = []
    with TemporaryDirectory(dir=folder) as place:
        for row in compare(Path(place), slices or [64, 256, 1024], method, output):
            rows.append(row)
            console.print(
                f"{row.format}, {row.slices} slices: {row.peak_mb:.0f} MB, {row.seconds:.1f} s", highlight=False
            )
    shown = [
        [r.format, str(r.slices), f"{r.gigabytes:.2f}", f"{r.peak_mb:.0f}", f"{r.planned_mb:.0f}", f"{r.seconds:.1f}"]
        for r in rows
    ]
    title = f"{method}, {SIDE} x {SIDE}, {VIEWS} views, to {output}; {machine()}"
    table(["format", "slices", "file, GB", "peak, MB", "planned, MB", "seconds"], shown, title)
    write_rows(json_file, [asdict(r) for r in rows])


def cone(
    volumes: Annotated[list[Path], typer.Argument(help="CT volumes in HU, NIfTI.")],
    views: Annotated[str, typer.Option(help="Numbers of views, comma-separated.")] = "30,60,120",
    methods: Annotated[str, typer.Option(help="Names, comma-separated.")] = "fbp,tv,red-diff,dds,diffusion-mbir",
    size: Annotated[int, typer.Option(min=16, help="Voxels along the longest side.")] = 128,
    json_file: Json = None,
) -> None:
    """Cone-beam quality: PSNR of volume and planes, seconds and memory, by method and number of views."""
    from tests.benchmarks.cone import compare

    rows = []
    for row in compare(volumes, [int(n) for n in views.split(",")], methods.split(","), size, {}):
        rows.append(row)
        console.print(f"{row.task}, {row.method}: {row.psnr:.2f} dB, {row.seconds:.0f} s", highlight=False)
        write_rows(json_file, [asdict(r) for r in rows])  # hours: what is done stays
    table(
        ["task", "method", "PSNR, dB", "axial", "coronal", "sagittal", "seconds", "projecting", "peak, MB"],
        [
            [
                r.task, r.method, *(f"{n:.2f}" for n in (r.psnr, r.psnr_axial, r.psnr_coronal, r.psnr_sagittal)),
                f"{r.seconds:.0f}", f"{r.projection_seconds:.0f}", f"{r.peak_bytes / 1e6:.0f}",
            ]
            for r in rows
        ],
        machine(),
    )  # fmt: skip


def speed(
    data: Annotated[Path, typer.Option(help="Folder with the test volumes, as test/ in it.")],
    tasks: Annotated[
        str, typer.Option(help="Scans, semicolon-separated.")
    ] = "CT, 60 views;MRI, 8 coils, equispaced x4;cone, 60 views",
    sizes: Annotated[str, typer.Option(help="Rows and columns, comma-separated.")] = "128,256",
    slices: Annotated[str, typer.Option(help="Numbers of slices, comma-separated; a cone beam is a cube.")] = "1,16",
    methods: Annotated[
        str, typer.Option(help="Names, comma-separated; those that fit a scan are run.")
    ] = "tv,red-diff,dds,diffpir",
    efforts: Annotated[str, typer.Option(help="Efforts, comma-separated.")] = "draft,standard,best",
    json_file: Json = None,
) -> None:
    """Speed of methods and efforts: seconds, the network's share, and both in units of a matrix product's rate."""
    from tests.benchmarks import speed as bench

    rows: list[bench.Row] = []
    if json_file is not None and json_file.exists():
        rows = [bench.Row(**row) for row in json.loads(json_file.read_text())["rows"]]
    counts = [(int(size), int(count)) for size in sizes.split(",") for count in slices.split(",")]
    for task, (size, count) in itertools.product(tasks.split(";"), counts):
        for row in bench.compare(
            data, task, size, count, methods.split(","), rows, bench.limited(machine()), efforts.split(",")
        ):
            rows = bench.against_best([*rows, row])
            told = f"{row.task}, {row.size}^2 x {row.slices}, {row.method} {row.effort or ''}"
            console.print(f"{told}: {row.seconds:.1f} s, {row.psnr:.2f} dB", highlight=False)
            write_rows(json_file, [asdict(r) for r in rows])
    shown = [
        [
            r.task, f"{r.size}^2 x {r.slices}", r.method, r.effort or "",
            f"{r.seconds:.1f}", f"{r.network_seconds:.1f}", f"{r.teraflops:.2f}",
            f"{r.psnr:.2f}", f"{r.psnr_minus_best:+.2f}",
        ]
        for r in rows
    ]  # fmt: skip
    columns = ["task", "size", "method", "effort", "s", "network, s", "1e12 products", "PSNR, dB", "to the best"]
    table(columns, shown, bench.limited(machine()))


for command in (
    cone,
    speed,
    evaluations,
    discrepancy,
    stacks,
    pixels,
    quality,
    support,
    startup,
    streaming,
    preparation,
    stripes,
    samples,
    coils,
    readout,
    compression,
    mri_measured,
):
    app.command()(command)

if __name__ == "__main__":
    report_errors(app)
