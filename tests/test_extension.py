"""Another package adds an acquisition, a method and two formats; nothing of ours is patched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from recon.cli.demo_server import server

ROOT = Path(__file__).parent.parent
ENTRY_POINTS = """
[recon.acquisitions]
toy-doubled = toy.acquisition:Doubled
[recon.methods]
toy-halved = toy.method:Halved
[recon.formats]
toy-text = toy.text:FORMAT
[recon.output_formats]
toy-csv = toy.csv:FORMAT
"""
ACQUISITION = '''
"""A detector that shows every value twice as large."""
from collections.abc import Sequence
from typing import Literal, Self

from recon.spec.acquisitions.base import Acquisition, Shape
from recon.spec.affine import Affine
from operators.errors import InputError
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.simulation import Simulation


class Doubled(Acquisition):
    MODALITY = "ct"
    AXES = ("slices", "rows", "cols")
    METHODS = ()
    BASELINE = "toy-halved"
    PHYSICS = "toy.physics"

    kind: Literal["toy-doubled"] = "toy-doubled"
    offset: float = 0.0
    background: File | None = None

    def check(self, data, **files) -> None:
        found = files.get("background")
        if found is not None and found.shape != data.shape[1:]:
            raise InputError(f"{found.shape} for {data.shape}", field="acquisition.background", remedy="give another")

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        return shape[0], shape[1], shape[2]

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        return self, tuple(shape)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        return 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        return 1e-6
'''
PHYSICS = '''
"""Its operator and its inverse problem."""
import torch

from operators.linear import LinearOperator, Space
from recon.problem.inverse_problem import InverseProblem, placed
from recon.problem.problem import Problem


class Doubling(LinearOperator):
    def __init__(self, rows, cols):
        super().__init__(Space((rows, cols)), Space((rows, cols)))

    def _forward(self, x):
        return 2 * x

    def _adjoint(self, y):
        return 2 * y


def build(measurement):
    data, notes = torch.from_numpy(measurement.data), ["doubled"]
    _, rows, cols = data.shape
    affine, in_patient = placed(measurement, rows, cols, 1.0, 1.0, notes)
    data = data - measurement.acquisition.offset
    if "background" in measurement.files:
        data = data - torch.from_numpy(measurement.files["background"])
    problem = Problem(Doubling(rows, cols), data)
    return InverseProblem(problem, affine, in_patient, "counts", "ct", notes)
'''
METHOD = '''
"""Halving, light."""
from typing import Literal

from pydantic import Field

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import MethodSettings


class Halved(MethodSettings):
    SOLVER = "toy.solver:solve"
    FOR = ("toy-doubled",)

    name: Literal["toy-halved"] = "toy-halved"
    times: int = Field(1, ge=1)

    def cost(self, acquisition: Acquisition) -> Cost:
        return Cost(volumes=2, products=2 * self.times)
'''
SOLVER = '''
"""Halving, heavy."""
from recon.problem.problem import Progress


def solve(problem, settings):
    volume = problem.operator.adjoint(problem.data) / 4
    for step in range(settings.times):
        yield Progress(step + 1, settings.times, volume, problem)
    return volume
'''
TEXT = '''
"""Numbers as text below a line with their shape."""
import numpy as np

from operators.errors import InputError
from recon.formats.format import Format, PlainArray


def read(path, given):
    with path.open() as stream:
        first = stream.readline().split()
        if first[:1] != ["TOY"]:
            raise InputError(f"{path.name} does not begin with TOY", field="input", remedy="give a toy file")
        return PlainArray(np.loadtxt(stream, dtype=np.float32).reshape([int(n) for n in first[1:]]))


FORMAT = Format(name="toy-text", endings=(".toy",), magic=(b"TOY ",), certain=True, read=read)
'''
CSV = '''
"""Rows of a volume below each other."""
import numpy as np

from recon.formats.format import Format


def write(path, volume):
    np.savetxt(path, volume.data.reshape(-1, volume.data.shape[-1]), delimiter=",", header=volume.unit)


FORMAT = Format(name="toy-csv", endings=(".csv",), media_type="text/csv", write=write)
'''
IMAGE = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH in which the package lies as if it were installed."""
    site = tmp_path / "site"
    files = {
        "__init__": "", "acquisition": ACQUISITION, "physics": PHYSICS, "method": METHOD, "solver": SOLVER,
        "text": TEXT, "csv": CSV,
    }  # fmt: skip
    (site / "toy").mkdir(parents=True)
    for name, text in files.items():
        (site / "toy" / f"{name}.py").write_text(text)
    info = site / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture
def environment(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started find the package."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(ROOT)]))


def job(folder: Path, **changes: object) -> Path:
    """A specification with all four, and its input beside it."""
    numbers = "\n".join(" ".join(str(v) for v in row) for row in (2 * IMAGE + 1).reshape(-1, 4))
    (folder / "scan.toy").write_text(f"TOY 2 3 4\n{numbers}\n")
    spec = {
        "input": {"path": "scan.toy"},
        "acquisition": {"kind": "toy-doubled", "offset": 1.0},
        "method": {"name": "toy-halved", "times": 3},
        "output": {"format": "toy-csv", "montage": False},
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def recon(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recon.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def values(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.usefixtures("environment")
def test_the_command_line_runs_a_job_of_another_packages_kinds(tmp_path: Path) -> None:
    done = recon("run", job(tmp_path), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(values(tmp_path / "out" / "volume.csv"), IMAGE)
    assert (tmp_path / "out" / "volume.csv").read_text().startswith("# counts")
    planned = recon("plan", tmp_path / "job.yaml", "--json")
    assert planned.returncode == 0 and '"toy-halved"' in planned.stdout


@pytest.mark.usefixtures("environment")
def test_its_own_file_is_checked_and_reaches_its_problem(tmp_path: Path) -> None:
    fields = {"kind": "toy-doubled", "offset": 1.0, "background": {"path": "background.npy"}}
    np.save(tmp_path / "background.npy", np.full((3, 4), 2.0, np.float32))
    done = recon("run", job(tmp_path, acquisition=fields), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(values(tmp_path / "out" / "volume.csv"), IMAGE - 1)
    np.save(tmp_path / "background.npy", np.zeros((4, 4), np.float32))
    done = recon("run", tmp_path / "job.yaml", "-o", tmp_path / "other")
    assert done.returncode == 2 and "acquisition.background: (4, 4) for (2, 3, 4)" in done.stderr


@pytest.mark.usefixtures("environment")
def test_what_does_not_fit_together_is_refused_by_name(tmp_path: Path) -> None:
    done = recon("run", job(tmp_path, method="fbp"), "-o", tmp_path / "out")
    assert done.returncode == 2 and "method: fbp does not fit toy-doubled (use one of toy-halved" in done.stderr
    done = recon("run", job(tmp_path, acquisition={"kind": "ct-parallel", "detector_mm": 1.0}), "-o", tmp_path / "out")
    assert done.returncode == 2 and "toy-halved does not fit ct-parallel" in done.stderr
    job(tmp_path)
    (tmp_path / "scan.toy").write_text("nothing")
    done = recon("run", tmp_path / "job.yaml", "-o", tmp_path / "out")
    assert done.returncode == 2 and "scan.toy does not begin with TOY" in done.stderr


@pytest.mark.usefixtures("environment")
def test_the_service_runs_it_too(tmp_path: Path) -> None:
    with server(tmp_path / "store") as url:
        done = recon("submit", job(tmp_path), "--url", url, "--wait")
        assert done.returncode == 0, done.stderr
        with httpx.Client(base_url=url) as client:
            (found,) = client.get("/v1/jobs").json()["jobs"]
            assert found["state"] == "succeeded" and found["method"] == "toy-halved"
            answer = client.get(f"/v1/jobs/{found['id']}/results/volume.csv")
            schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert answer.headers["content-type"].startswith("text/csv")
        (tmp_path / "served.csv").write_bytes(answer.content)
        assert np.array_equal(values(tmp_path / "served.csv"), IMAGE)
        assert {"Doubled", "Halved"} <= set(schemas)


def test_without_the_package_its_kinds_are_unknown(tmp_path: Path) -> None:
    done = recon("run", job(tmp_path), "-o", tmp_path / "out")
    assert done.returncode == 2 and "toy-doubled" in done.stderr
