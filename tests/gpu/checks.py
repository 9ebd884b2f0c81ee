"""Checks of CUDA paths against the CPU: projectors, priors in half precision, and whole jobs."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from operators import volume_geometry
from operators.geometry import FanBeam, ParallelBeam
from operators.linear import LinearOperator, dot_product_error
from operators.tomography import Tomography
from operators.volume_geometry import VolumeBeam
from operators.volume_tomography import VolumeTomography
from recon.priors import cards, registry
from recon.priors.network import Denoiser
from recon.samples import SAMPLES

FORWARD, ADJOINT = 0.02, 0.05
"""Relative RMS difference to the CPU's projections and back-projections of smooth data that is not a fault: other
interpolation, and a voxel-driven adjoint."""
HALF_DB = 45.0
"""PSNR in dB of a prior in half precision against float32, below which something is wrong."""
JOB_DB = 0.3
"""Difference in dB between a job on the GPU and on the CPU that is not a fault."""
SIGMA = 0.1
SIDE, VIEWS = 96, 60


@dataclass(frozen=True)
class Row:
    """Outcome of one check.

    Parameters
    ----------
    check
        Its name.
    error, allowed
        What was measured, and the bound that it has to keep: a largest error, or with `least` a least value.
    seconds, cpu_seconds
        Time on the GPU, and on the CPU for the same.
    peak_bytes
        Peak memory on the GPU.
    """

    check: str
    error: float
    allowed: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the bound is kept; a value that is no number keeps none."""
        return self.error >= self.allowed if self.least else self.error <= self.allowed


def missing() -> str | None:
    """Reason for which nothing can be checked here; None if there is a GPU for both libraries."""
    import astra

    if not torch.cuda.is_available():
        return "torch finds no CUDA device (a CPU build has none)"
    if not astra.use_cuda():
        return "ASTRA finds no CUDA device"
    return None


def smooth(*shape: int) -> Tensor:
    """Ball off the middle of the last three axes, not symmetric in any, with soft edges."""
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in shape[-3:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    body = torch.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2 + (z - 0.15) ** 2) / 0.08)
    return (0.02 * (body + 0.5 * torch.exp(-((x + 0.4) ** 2 + (y - 0.35) ** 2 + (z + 0.3) ** 2) / 0.02))).expand(shape)


def geometries() -> dict[str, ParallelBeam]:
    """Geometries of slices."""
    turn = [math.pi * i / VIEWS for i in range(VIEWS)]
    whole = [2 * a for a in turn]
    return {
        "parallel": ParallelBeam(SIDE, SIDE, 1.0, tuple(turn), 2 * SIDE, 1.0),
        "parallel, shifted": ParallelBeam(SIDE, SIDE, 1.0, tuple(turn), 2 * SIDE, 1.0, 3.5),
        "fan": FanBeam(SIDE, SIDE, 1.0, tuple(whole), 2 * SIDE, 2.0, 0.0, 400.0, 400.0),
    }


def volume_geometries() -> dict[str, VolumeBeam]:
    """Geometries of volumes, not cubes, so that axes cannot be taken for each other."""
    whole = [2 * math.pi * i / VIEWS for i in range(VIEWS)]
    cone = {"source_origin_mm": 400.0, "origin_detector_mm": 400.0, "column_mm": 2.0, "row_mm": 2.0}
    vectors = {
        "cone": volume_geometry.circular(whole, **cone),
        "cone, displaced and rolled": volume_geometry.circular(whole, **cone, column_shift_mm=9.0, roll_rad=0.03),
        "helix": volume_geometry.helical(turns=2, views=VIEWS, pitch_mm=30.0, **cone),
    }
    tilted = volume_geometry.parallel(whole, column_mm=1.0, row_mm=1.0, axis_tilt_rad=0.2)
    sizes = (48, SIDE, SIDE - 16, 1.0, 1.0)
    found = {name: VolumeBeam(*sizes, each, 96, 160) for name, each in vectors.items()}
    return found | {"tilted axis": VolumeBeam(*sizes, tilted, 96, 160, beam="parallel")}


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative RMS difference."""
    return float((found - expected).norm() / expected.norm())


def projectors() -> Iterator[Row]:
    """Compare ASTRA's GPU projectors with the CPU's, forward and adjoint, and say how far they are from adjoint."""
    pairs: list[tuple[str, LinearOperator, LinearOperator, Tensor]] = []
    for name, flat in geometries().items():
        pairs.append((name, Tomography(flat), Tomography(flat, "cuda"), smooth(8, SIDE, SIDE)))
    for name, volume in volume_geometries().items():
        image = smooth(*volume.volume_shape)[None]
        pairs.append((name, VolumeTomography(volume), VolumeTomography(volume, "cuda"), image))
    for name, on_cpu, on_gpu, image in pairs:
        expected, cpu_seconds = timed(lambda on_cpu=on_cpu, image=image: on_cpu.forward(image))  # type: ignore[misc]
        found, seconds, peak = on_device(lambda on_gpu=on_gpu, image=image: on_gpu.forward(image))  # type: ignore[misc]
        yield Row(f"{name}, forward", relative(found, expected), FORWARD, seconds, cpu_seconds, peak)
        back, cpu_seconds = timed(lambda on_cpu=on_cpu, data=expected: on_cpu.adjoint(data))  # type: ignore[misc]
        found, seconds, peak = on_device(lambda on_gpu=on_gpu, data=expected: on_gpu.adjoint(data))  # type: ignore[misc]
        yield Row(f"{name}, adjoint", relative(found, back), ADJOINT, seconds, cpu_seconds, peak)
        yield Row(f"{name}, dot test", dot_product_error(on_gpu), 1e-2, 0.0, 0.0, 0)


def priors() -> Iterator[Row]:
    """Compare shipped priors in float32, float16 and bfloat16, channels last, with float32 on the CPU."""
    for name in ("ct", "brain-mri"):
        card = cards.card_of(name)
        network = plain_network(name)
        channels = network.image_channels
        clean = smooth(8, 1, 128, 128)[:, 0] / 0.02 - 0.5
        noise = torch.randn(8, channels, 128, 128, generator=torch.Generator().manual_seed(0))
        x = clean[:, None].expand(-1, channels, -1, -1) + SIGMA * noise
        sigma = torch.full((8,), SIGMA)
        with torch.inference_mode():
            expected, cpu_seconds = timed(lambda: network(x, sigma))  # noqa: B023 - called before the next round
            for kind in (torch.float32, torch.float16, torch.bfloat16):
                on_gpu = channels_last(plain_network(name).to("cuda", kind))
                given = x.to("cuda", kind).contiguous(memory_format=torch.channels_last)
                found, seconds, peak = on_device(lambda: on_gpu(given, sigma.to("cuda", kind)).float().cpu())  # noqa: B023
                error = (found - expected).square().mean().sqrt()
                psnr = float(20 * torch.log10((expected.max() - expected.min()) / error))
                label = f"{card.name}, {str(kind).removeprefix('torch.')}, dB"
                yield Row(label, psnr, HALF_DB, seconds, cpu_seconds, peak, least=True)


def plain_network(name: str) -> Denoiser:
    """Network of a shipped prior in float32, on the CPU and not compiled."""
    prior = registry.load(name)
    found = registry.new_network(prior.card)
    found.load_state_dict({key: value.float().cpu() for key, value in prior.network.state_dict().items()})
    return found.eval().requires_grad_(False)


def channels_last(network: Denoiser) -> Denoiser:
    """Lay the convolutions of a network out with their channels last, as tensor cores want them."""
    for values in network.parameters():
        if values.dim() == 4:
            values.data = values.data.contiguous(memory_format=torch.channels_last)
    return network


def jobs() -> Iterator[Row]:
    """Run a CT, a cone-beam and an MRI job with and without the GPU, each in a process of its own."""
    body = str(SAMPLES / "ct_body.nii.gz")
    simulated = {"path": body, "slices": [40, 48], "simulate": {"views": VIEWS, "photons_per_ray": 1e5}}
    red_diff = {"name": "red-diff", "steps": 10}
    specs = {
        "CT": {"input": simulated, "acquisition": "ct-parallel", "method": red_diff},
        "cone beam": {"input": simulated, "acquisition": "ct-cone", "method": red_diff},
        "MRI": {
            "input": {"path": str(SAMPLES / "mri_brain_8coil.npy"), "format": "numpy"},
            "acquisition": "mri-cartesian",
            "method": red_diff,
        },
    }
    for name, spec in specs.items():
        on_gpu, on_cpu = job(spec, gpu=True), job(spec, gpu=False)
        # Without a truth the misfits are compared, in dB.
        values = [
            run["psnr"] if run["psnr"] is not None else -20 * math.log10(run["misfit"]) for run in (on_gpu, on_cpu)
        ]
        yield Row(
            f"{name} by RED-Diff, dB apart", abs(values[0] - values[1]), JOB_DB, on_gpu["seconds"], on_cpu["seconds"],
            int(on_gpu["peak"]),
        )  # fmt: skip


_JOB = """if True:
    import json, sys, time, tempfile
    import torch
    import recon
    spec = json.loads(sys.argv[1])
    begun = time.perf_counter()
    source = spec["input"]
    found = recon.reconstruct(
        source["path"], spec["acquisition"], method=spec["method"], baselines=[], progress=False,
        **{k: v for k, v in source.items() if k != "path"},
    )
    report = found.report
    scores = (report.against_truth or {}).get("red-diff")
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps({"psnr": scores.psnr if scores else None, "misfit": report.misfit,
                      "seconds": time.perf_counter() - begun, "peak": peak}))
"""


def job(spec: Mapping[str, object], *, gpu: bool) -> dict[str, float]:
    """Run a job in a process that sees the GPU, or does not."""
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _JOB, json.dumps(spec)],
            capture_output=True, text=True, cwd=folder, env=os.environ | hidden, timeout=240,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the job failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Result of some work, and the seconds of its second run."""
    work()
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


def on_device(work: Callable[[], Tensor]) -> tuple[Tensor, float, int]:
    """Result of some work on the GPU, the seconds of its second run, and its peak memory in bytes."""
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    found = work()
    torch.cuda.synchronize()
    return found, time.perf_counter() - begun, torch.cuda.max_memory_allocated()


def every() -> Iterator[Row]:
    """Run all checks."""
    yield from projectors()
    yield from priors()
    yield from jobs()


def save(rows: list[Row], path: Path) -> None:
    """Write the rows as JSON."""
    path.write_text(json.dumps([{**vars(row), "passed": row.passed} for row in rows], indent=1) + "\n")
