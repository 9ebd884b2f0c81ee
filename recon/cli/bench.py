"""``recon bench``: the commands behind the figures in the documents."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from recon.cli.local import slice_range
from recon.cli.show import console, table

Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Benchmarks: what the documents quote is printed here.")
    group.command()(operators)
    group.command()(solvers)
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
    photons: Annotated[float | None, typer.Option(help="Photons a ray; noiseless when not given.")] = None,
    methods: Annotated[
        str, typer.Option(help="JSON list of method settings, each with a name; names alone may be comma-separated.")
    ] = "fbp,tv,annealed",
    json_file: Json = None,
) -> None:
    """PSNR of methods on one simulated CT measurement, against the volume it was made from."""
    from recon.bench.solvers import compare, ct_measurement

    wanted: list[dict[str, Any]] = (
        json.loads(methods) if methods.startswith("[") else [{"name": n.strip()} for n in methods.split(",")]
    )
    rows = []
    for count in (int(v) for v in views.split(",")):
        measurement = ct_measurement(volume, slice_range(slices), count, photons)
        for row in compare(measurement, count, wanted):
            rows.append(row)
            console.print(f"{row.views} views  {row.method}: {row.psnr:.2f} dB, {row.seconds:.1f} s", highlight=False)
    shown = [[str(r.views), r.method, f"{r.psnr:.2f}", f"{r.data_misfit:.5f}", f"{r.seconds:.1f}"] for r in rows]
    noise = "noiseless" if photons is None else f"{photons:g} photons a ray"
    table(["views", "method", "PSNR, dB", "misfit", "seconds"], shown, f"{volume.name} {slices}, {noise}; {machine()}")
    _write(json_file, [asdict(r) for r in rows])


def machine() -> str:
    """The machine, in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores, {model}"


def _write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
