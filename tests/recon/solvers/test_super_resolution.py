"""Super-resolution: the right place and scale, a solver against its closed form, and a frozen noise that is checked."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from typer.testing import CliRunner

from operators.errors import GeometryError, InputError
from operators.resolution import Truncation
from operators.stack_set import Stack, StackSet
from recon.cli.main import app
from recon.defaults import frozen_noise
from recon.defaults.frozen_noise import NoiseFile, analyse, expected_maximum, of_settings, search
from recon.formats import nifti
from recon.measurement.simulate import simulate
from recon.priors import registry
from recon.priors.card import Card
from recon.priors.noise import SliceNoise
from recon.problem.problem import IntensityMap, Problem, run
from recon.problem.superresolution import downsampling, from_planes, in_planes
from recon.samples import SAMPLES
from recon.solvers.registry import start
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.methods import Boundary
from recon.spec.simulation import Simulation
from recon.training.export import export
from recon.tuning.search_noise import search_noise, task_of_job, tasks_of_prior
from tests.recon.pipeline.test_reconstruct import job, psnr, reconstructed
from tests.recon.training.test_training import tiny, trained

AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("zy", [2.0, 3.0], degrees=True).as_matrix() @ np.diag([-0.9, -1.1, 2.0])
AFFINE[:3, 3] = 30, 50, -100


def blob(shape: tuple[int, int, int], at: tuple[float, float, float]) -> np.ndarray:
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    widths = (2.0, 3.0, 3.5)
    value = sum(((g - c) / w) ** 2 for g, c, w in zip(grid, at, widths, strict=True))
    return np.exp(-0.5 * value).astype(np.float32)


def centre(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of mass in millimetres."""
    s, r, c = (float((g * volume).sum() / volume.sum()) for g in np.indices(volume.shape))
    return (affine @ [c, r, s, 1.0])[:3]


@pytest.mark.parametrize("rows", [24, 26])  # 13 low-resolution rows: an odd number
@pytest.mark.parametrize("direction", ["plane", "slices"])
def test_a_stack_is_refined_in_its_place(tmp_path: Path, direction: str, rows: int) -> None:
    """Simulated from a volume, written as a scanner would, read as a stack: everything stays where it is."""
    truth = blob((12, rows, 32), (6.3, 11.2, 18.4))
    nifti.write(tmp_path / "truth.nii.gz", truth, AFFINE, "test")
    acquisition = {"kind": "mri-superresolution", "factor": 2, "direction": direction}
    known = {"path": str(tmp_path / "truth.nii.gz"), "simulate": {}}
    spec = job(input=known, acquisition=acquisition, method="interpolation")
    simulated, affine, report = reconstructed(spec, tmp_path / "simulated")
    assert np.allclose(affine, AFFINE, atol=1e-4)
    assert psnr(report)["interpolation"] > 30
    assert np.abs(centre(simulated, affine) - centre(truth, AFFINE)).max() < 0.05

    low, low_affine = lowered(truth, direction)
    nifti.write(tmp_path / "low.nii.gz", low, low_affine, "test")
    spec = job(input=str(tmp_path / "low.nii.gz"), acquisition=acquisition, method="interpolation")
    measured, affine, report = reconstructed(spec, tmp_path / "measured")
    assert np.allclose(affine, AFFINE, atol=1e-4)
    assert report.against_truth is None
    assert np.allclose(measured, simulated, atol=1e-4)


@pytest.mark.parametrize(
    "acquisition",
    [
        {"factor": 2.5},
        {"factor": 2, "filter": "tukey", "zero_fill": 1.5},
        {"factor": 2.5, "direction": "slices", "profile": "slr", "gap": 0.2},
        {"factor": 2, "direction": "slices"},
    ],
)
def test_a_volume_of_any_size_comes_back_as_large_and_in_its_place(tmp_path: Path, acquisition: dict[str, Any]) -> None:
    """No size here is a multiple of the factor; the stack, read without its volume, is as large as it needs to be."""
    truth = blob((13, 27, 31), (6.3, 13.2, 15.4))
    nifti.write(tmp_path / "truth.nii.gz", truth, AFFINE, "test")
    acquisition = {"kind": "mri-superresolution", **acquisition}
    known = {"path": str(tmp_path / "truth.nii.gz"), "simulate": {}}
    spec = job(input=known, acquisition=acquisition, method="interpolation")
    found, affine, report = reconstructed(spec, tmp_path / "simulated")
    assert found.shape == truth.shape and np.allclose(affine, AFFINE, atol=1e-4)
    assert np.abs(centre(found, affine) - centre(truth, AFFINE)).max() < 0.1
    assert psnr(report)["interpolation"] > 20
    said = any("profile of the slices not given" in note for note in report.notes)
    assert said == (acquisition.get("direction") == "slices" and "profile" not in acquisition)

    kind = MRISuperResolution.model_validate(acquisition)
    low = downsampling(kind, truth.shape).forward(in_planes(torch.from_numpy(truth).to(torch.complex64), kind))
    stack = from_planes(low, kind).abs().numpy()
    stack_affine = AFFINE @ np.linalg.inv(kind.result_affine(np.eye(4), stack.shape))
    nifti.write(tmp_path / "low.nii.gz", stack, stack_affine, "test")
    spec = job(input=str(tmp_path / "low.nii.gz"), acquisition=acquisition, method="interpolation")
    measured, affine, _ = reconstructed(spec, tmp_path / "measured")
    assert measured.shape == kind.result_shape(stack.shape)
    assert np.allclose(affine, AFFINE, atol=1e-4)
    inside = tuple(slice(0, n) for n in truth.shape)
    assert np.allclose(measured[inside], found, atol=1e-3)


def test_the_noise_of_a_filtered_stack_is_the_one_in_it() -> None:
    """What is simulated says the noise that the stack has, not that before the scanner's filter."""
    truth = np.zeros((40, 32, 32), np.float32)
    truth[:, 4:28, 4:28] = 1
    stack = MRISuperResolution(factor=2, filter="hann", zero_fill=1.5)
    noisy, quiet = (simulate(truth, np.eye(4), stack, Simulation(noise_std=std)) for std in (0.02, 0.0))
    inside = np.s_[:, 6:10, 6:10]  # far from air, where magnitudes have a floor
    assert noisy.noise_std == pytest.approx(0.02)
    assert float(np.std(np.subtract(noisy.data[inside], quiet.data[inside]))) == pytest.approx(0.02, rel=0.1)


def test_the_middle_of_a_stack_stays_where_it_is() -> None:
    """Whatever the factor: the affine of the result puts a thick slice's centre between the thin ones it covers."""
    for factor in (2, 2.5, 4):
        kind = MRISuperResolution(factor=factor, direction="slices")
        finer = kind.result_affine(np.diag([1.0, 1.0, factor, 1.0]), (6, 8, 8))
        # Thick slice 0 reaches from thin edge 0 to thin edge `factor`: centres from 0 to factor - 1.
        assert finer[2, 2] == pytest.approx(1.0) and finer[2, 3] == pytest.approx(-(factor - 1) / 2)


def test_settings_of_the_other_direction_are_refused() -> None:
    for acquisition, named in (
        ({"profile": "slr"}, "profile has no effect with direction: plane"),
        ({"gap": 0.1}, "gap has no effect with direction: plane"),
        ({"direction": "slices", "filter": "hann"}, "filter has no effect with direction: slices"),
        ({"direction": "slices", "zero_fill": 2}, "zero_fill has no effect with direction: slices"),
        ({"factor": 0.5}, r"acquisition\.factor"),
        ({"direction": "slices", "profile": "sinc"}, r"acquisition\.profile"),
    ):
        with pytest.raises(InputError, match=named):
            job(input="a.nii", acquisition={"kind": "mri-superresolution", **acquisition}, method="interpolation")


def lowered(volume: np.ndarray, direction: str) -> tuple[np.ndarray, np.ndarray]:
    """Low resolution and the affine a scanner would give it, written out by hand."""
    affine = AFFINE.copy()
    if direction == "slices":
        affine[:3, 2] *= 2
        affine[:3, 3] += 0.5 * AFFINE[:3, 2]
        return volume.reshape(-1, 2, *volume.shape[1:]).mean(axis=1), affine
    rows, cols = volume.shape[1:]
    operator = Truncation(rows, cols, 2)
    affine[:3, :2] *= 2
    # Pixel 0 of the low-resolution grid lies on this pixel of the fine one.
    first_row, first_col = (2 * (0 - (n // 2) // 2) + n // 2 for n in (rows, cols))
    affine[:3, 3] += first_col * AFFINE[:3, 0] + first_row * AFFINE[:3, 1]
    return operator(torch.from_numpy(volume).to(torch.complex64)).abs().numpy(), affine


def test_a_stack_that_cannot_be_refined_says_why(tmp_path: Path) -> None:
    nifti.write(tmp_path / "odd.nii.gz", blob((4, 15, 16), (2, 7, 8)), AFFINE, "test")
    acquisition = {"kind": "mri-superresolution", "factor": 2}
    nifti.write(tmp_path / "one.nii.gz", blob((1, 16, 16), (0, 7, 8)), AFFINE, "test")
    for known in ({"path": str(tmp_path / "one.nii.gz"), "simulate": {}}, str(tmp_path / "one.nii.gz")):
        spec = job(input=known, acquisition={**acquisition, "direction": "slices"}, method="interpolation")
        with pytest.raises(GeometryError, match=r"acquisition\.direction: the stack has one slice.*direction: plane"):
            reconstructed(spec, tmp_path / "out")
    halves = MRISuperResolution(factor=2.5, direction="slices")
    assert halves.slices_of_result(2, 5) == (5, 13)
    with pytest.raises(InputError, match=r"input\.slices: slice 1 begins at 2\.5 thin slices.*begin at 0"):
        halves.slices_of_result(1, 4)
    nifti.write(tmp_path / "ct.nii.gz", blob((4, 16, 16), (2, 7, 8)) * 1000 - 1000, AFFINE, "test")
    spec = job(input=str(tmp_path / "ct.nii.gz"), acquisition=acquisition, method="interpolation")
    with pytest.raises(InputError, match="magnitudes are negative"):
        reconstructed(spec, tmp_path / "out")
    spec = job(input=str(tmp_path / "odd.nii.gz"), acquisition={**acquisition, "factor": 7}, method="boundary")
    with pytest.raises(InputError, match=r"method\.prior: no prior covers super-resolution of mri by x7"):
        reconstructed(spec, tmp_path / "out")
    with pytest.raises(InputError, match="does not fit mri-cartesian"):
        job(input="k.npy", acquisition="mri-cartesian", method="boundary")


class ConditionalGaussian:
    """The exact denoiser of ``x ~ N(condition, variance I)``."""

    variance, complex, conditional = 0.09, True, True
    card = cast(
        Card,
        SimpleNamespace(
            name="gaussian",
            modality="mri",
            refines=True,
            for_factor=(2.0).__eq__,
            least_squares=False,
            conditional=True,
        ),
    )

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        return condition + self.variance / (self.variance + sigma**2) * (x - condition)


def refined(**settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Result, interpolated condition and starting noise of a small problem."""
    truth = 0.5 + 0.1 * torch.randn(2, 32, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    operator = Truncation(32, 24, 2)
    problem = Problem(operator, operator(truth))
    method = Boundary(frozen_noise="random", **settings)
    found = run(start(problem, method, prior=ConditionalGaussian(), intensity=IntensityMap(2.0, 0.0), seed=3))
    return found / 2, operator.upsample(problem.data) / 2, SliceNoise(3, len(truth), shared=True).draw(truth)


def test_the_ode_carries_the_noise_to_the_image() -> None:
    """With a Gaussian prior the flow is known: noise is scaled by ``sqrt((v + s0^2) / (v + s^2))``."""
    errors = {}
    for order in (1, 2):
        found, condition, noise = refined(
            order=order, start="noise", steps=40, sigma_first=5.0, sigma_last=0.001, consistency=False
        )
        begin = 5.0 * noise - condition
        exact = condition + begin * (0.09 / (0.09 + 5.0**2)) ** 0.5
        errors[order] = float((found - exact).abs().square().mean().sqrt())
    assert errors[2] < 0.01 < errors[1] < 0.1


def test_without_noise_the_ode_ends_at_the_expected_image() -> None:
    """With a Gaussian prior what remains of the noise is in proportion to its amplitude."""
    ended = []
    for amplitude in (0.0, 0.5, 1.0):
        found, condition, _ = refined(amplitude=amplitude, sigma_last=0.01, steps=8, consistency=False)
        ended.append(found - condition)
    assert float(ended[0].abs().max()) < 1e-5
    assert torch.allclose(2 * ended[1], ended[2], atol=1e-5) and float(ended[2].abs().mean()) > 0.01


def test_detail_mixes_the_expected_image_and_a_drawn_one() -> None:
    """With a Gaussian prior the expected image is its mean, and a drawn one has its variance."""
    small = {"steps": 4, "detail_steps": 24, "sigma_first": 5.0, "sigma_detail": 0.01, "consistency": False}
    mean, condition, _ = refined(amplitude=0.0, steps=4, sigma_first=5.0, consistency=False)
    half, _, _ = refined(detail=0.5, amplitude=0.0, **small)
    sharp, _, noise = refined(detail=1.0, **{name: value for name, value in small.items() if name != "steps"})
    assert float((mean - condition).abs().max()) < 1e-5
    assert torch.allclose(half, (mean + sharp) / 2, atol=1e-5)
    spread = torch.view_as_real(sharp - condition).std()
    assert float(spread) == pytest.approx(ConditionalGaussian.variance**0.5, rel=0.05)
    # It is the starting noise that was drawn, scaled: not another lottery.
    cosine = torch.view_as_real(sharp - condition).flatten() @ torch.view_as_real(noise).flatten()
    assert float(cosine / torch.linalg.vector_norm(sharp - condition) / torch.linalg.vector_norm(noise)) > 0.999


def test_detail_costs_evaluations_and_refuses_what_it_does_not_use() -> None:
    assert [Boundary(detail=d).evaluations() for d in (0.0, 0.3, 1.0)] == [5, 13, 8]
    # The levels on the way to the image to be expected do not count where it has no share.
    assert Boundary(detail=1, sigma_first=0.8).detail_sigmas()[0] == pytest.approx(0.8)
    for settings, named in (
        ({"detail_steps": 4}, "detail_steps has no effect with detail: 0"),
        ({"detail": 1, "steps": 4}, "steps has no effect with detail: 1"),
        ({"detail": 0.5, "sigma_detail": 0.5, "sigma_first": 0.4, "sigma_last": 0.1}, "must be below sigma_first"),
        ({"detail": 1.1}, r"method\.detail"),
    ):
        with pytest.raises(InputError, match=named):
            job(input="a.nii", acquisition="mri-superresolution", method={"name": "boundary", **settings})


def test_what_was_drawn_is_reported(tmp_path: Path, prior: Path) -> None:
    nifti.write(tmp_path / "brain.nii.gz", blob((2, 32, 32), (1, 14.2, 18.4)), np.diag([1.0, 1, 1, 1]), "test")
    for detail in (0.0, 1.0):
        spec = job(
            input={"path": str(tmp_path / "brain.nii.gz"), "simulate": {}},
            acquisition="mri-superresolution",
            method={"name": "boundary", "prior": str(prior), "detail": detail},
        )
        _, _, report = reconstructed(spec, tmp_path / f"detail-{detail}")
        assert (report.undetermined is not None) == (detail > 0)
        assert any("no sample determined" in note for note in report.notes) == (detail > 0)


def test_the_data_are_met_whatever_the_network_says() -> None:
    operator = Truncation(32, 24, 2)
    for consistency, least, most in ((True, 0.0, 1e-3), (False, 0.02, 1.0)):
        found, condition, _ = refined(consistency=consistency, min_noise_std=1e-3, sigma_last=0.05)
        low = operator(condition)
        misfit = float(torch.linalg.vector_norm(operator(found) - low) / torch.linalg.vector_norm(low))
        assert least <= misfit < most


class Oracle(ConditionalGaussian):
    def __init__(self, image: Tensor) -> None:
        self.image = image

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        return self.image  # it knows the image


def test_the_noise_of_the_stack_comes_into_the_expected_image_as_far_as_the_estimate_errs() -> None:
    """Where data and estimate are taken to err by as much, half of the data's noise is left."""
    operator, generator = Truncation(32, 24, 2), torch.Generator().manual_seed(0)
    truth = 0.5 + 0.1 * torch.randn(2, 32, 24, dtype=torch.complex64, generator=generator)
    noise = 0.05 * float(operator.norms) * torch.randn(2, *operator.range.shape, 2, generator=generator)
    data = operator(truth) + torch.view_as_complex(noise)
    problem = Problem(operator, data, 0.05 * float(operator.norms))
    left = []
    for error in (0.05, 10.0):
        method = Boundary(frozen_noise="random", expected_error=error)
        found = run(start(problem, method, prior=Oracle(truth), intensity=IntensityMap(1.0, 0.0), seed=3))
        left.append(float((found - truth).abs().square().mean().sqrt()))
    assert left[0] == pytest.approx(0.5 * left[1], rel=0.02) and left[1] > 0.01


def test_a_slice_does_not_depend_on_its_batch() -> None:
    truth = torch.randn(3, 32, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    operator = Truncation(32, 24, 2)

    def solve(part: Tensor) -> Tensor:
        method = Boundary(frozen_noise="random", steps=4)
        part_of = Problem(operator, operator(part))
        return run(start(part_of, method, prior=ConditionalGaussian(), intensity=IntensityMap(1.0, 0.0), seed=3))

    assert torch.equal(solve(truth[:1]), solve(truth)[:1])


def test_every_slice_starts_from_the_same_noise_and_large_ones_repeat_it() -> None:
    def drawn(seed: int, *shape: int) -> Tensor:
        return SliceNoise(seed, shape[0], shared=True).draw(torch.zeros(shape))

    noise = drawn(1, 3, 300, 280)
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[0, 256:], noise[0, : 300 - 256])
    assert torch.equal(drawn(1, 2, 40, 50)[0], noise[0, :40, :50])  # a seed means the same at every size
    assert not torch.equal(noise, drawn(2, 3, 300, 280))
    assert float(drawn(1, 1, 256, 256).std()) == pytest.approx(1.0, rel=0.02)


def test_the_analysis_finds_the_variances_and_predicts_the_gain() -> None:
    generator = np.random.default_rng(0)
    seeds, slices, b, w = 64, 40, 0.3, 0.2

    def draw(count: int, noise: np.ndarray) -> np.ndarray:
        return 1.0 + noise[:, None] + generator.normal(0, 2, count) + generator.normal(0, w, (seeds, count))

    gains = []
    for _ in range(50):
        noise = generator.normal(0, b, seeds)
        errors = draw(slices, noise)
        found = analyse(errors)
        new = draw(slices, noise).mean(axis=1)
        gains.append(new.mean() - new[errors.mean(axis=1).argmin()])
    assert found.noise_std == pytest.approx(b, rel=0.25)
    assert found.interaction_std == pytest.approx(w, rel=0.1)
    assert np.mean(gains) == pytest.approx(found.expected_gain, rel=0.25)
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-3)
    assert analyse(generator.normal(0, 1, (8, 1000))).share < 0.05


def test_the_search_keeps_the_best_seed() -> None:
    best, errors = search(lambda seed: [abs(seed - 5) + 0.1, abs(seed - 5) + 0.3], range(2, 9))
    assert best == 5 and errors.shape == (7, 2)


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    """A small conditional prior of one's own."""
    trained(tiny(tmp_path, super_resolution=2), tmp_path, tmp_path / "run")
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    return tmp_path / "tiny.yaml"


def test_noise_is_searched_for_kept_and_checked(tmp_path: Path, prior: Path) -> None:
    nifti.write(tmp_path / "brain.nii.gz", blob((3, 32, 32), (1.3, 14.2, 18.4)), np.diag([1.0, 1, 1, 1]), "test")
    method = {"name": "boundary", "prior": "tiny.yaml", "detail": 1, "detail_steps": 3}
    spec = tmp_path / "job.yaml"
    text = {"input": {"path": "brain.nii.gz", "simulate": {}}, "acquisition": "mri-superresolution", "method": method}
    spec.write_text(str(text))
    out = tmp_path / "noise.yaml"
    done = CliRunner().invoke(app, ["search-noise", str(spec), "--out", str(out), "--candidates", "3"])
    assert done.exit_code == 0, done.output
    found = NoiseFile.read(out)
    assert found.errors[found.seed] == min(found.errors.values()) and len(found.errors) == 3
    assert found.metric == "sight" and set(found.parts) == {"nrmse", "perceptual", "sharpness"}
    assert found.scans == ["plane"]

    def solve(acquisition: object = "mri-superresolution", **more: Any) -> tuple[np.ndarray, Any]:
        settings = {**method, "prior": str(prior), **more}
        known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": {}}
        spec = job(input=known, acquisition=acquisition, method=settings, seed=found.seed)
        volume, _, report = reconstructed(spec, tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        return volume, report

    random, frozen = solve(frozen_noise="random"), solve(frozen_noise=str(out))
    assert np.array_equal(random[0], frozen[0])  # the job's seed is the one that was found
    assert frozen[1].frozen_noise.model_dump() == {"seed": found.seed, "amplitude": 1.0, "source": str(out)}
    assert not any("starting noise" in note for note in frozen[1].notes)
    # It serves other settings and directions, and the report says what differs.
    _, other = solve(frozen_noise=str(out), detail_steps=4)
    assert other.frozen_noise.seed == found.seed
    assert any("noise.yaml was searched with another detail_steps" in note for note in other.notes)
    _, sideways = solve({"kind": "mri-superresolution", "direction": "slices"}, frozen_noise=str(out))
    assert any("was searched for plane; the data are of slices" in note for note in sideways.notes)
    # Where none was searched for, any noise is as good; none of it enters the image to be expected.
    _, usual = solve()
    assert usual.frozen_noise.model_dump() == {"seed": 0, "amplitude": 1.0, "source": "usual"}
    assert any("usual one: none was searched for with prior 'tiny'" in note for note in usual.notes)
    _, expected = solve(detail=0, detail_steps=8)
    assert expected.frozen_noise.amplitude == 0 and not any("starting noise" in note for note in expected.notes)
    out.write_text(out.read_text().replace(str(found.prior_sha256), "ab" * 32))
    _, foreign = solve(frozen_noise=str(out))
    assert foreign.frozen_noise.model_dump() == {"seed": 0, "amplitude": 1.0, "source": "usual"}
    assert any("noise.yaml was searched for other weights of 'tiny'" in note for note in foreign.notes)


def test_one_noise_is_searched_on_all_tasks_of_a_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference slices are dealt out to factors and directions; the errors of all decide together."""
    recipe = tiny(tmp_path, factors=(2.0, 3.5))
    trained(recipe, tmp_path, tmp_path / "run")
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    monkeypatch.setattr("recon.training.recipe.Recipe.named", lambda name: recipe)
    method = Boundary(detail=1, detail_steps=2)
    tasks = tasks_of_prior(str(tmp_path / "tiny.yaml"), tmp_path, 5, method)
    assert [(t.measurement.acquisition.refined, t.inverse.problem.operator.scan) for t in tasks] == [
        (factor, direction) for factor in (2, 3) for direction in ("plane", "slices")
    ]
    assert [t.inverse.problem.slices for t in tasks] == [2, 1, 1, 1]
    found = search_noise(tasks, range(2), "sight", "recon search-noise tiny")
    assert found.slices == 5 and found.scans == ["plane", "slices"] and len(found.tasks) == 4
    with pytest.raises(InputError, match="3 for 4 tasks"):
        tasks_of_prior(str(tmp_path / "tiny.yaml"), tmp_path, 3, method)


def test_the_noise_of_a_ct_job_is_searched_by_a_perceptual_distance(tmp_path: Path, ct_file: Path) -> None:
    """Any deterministic solver and metric; the file serves the scan it was made for and no other."""
    method = {"name": "dds", "steps": 2, "eta": 0.5}
    spec = tmp_path / "job.yaml"
    known = {"path": str(ct_file), "simulate": {"views": 12}}
    spec.write_text(str({"input": known, "acquisition": "ct-parallel", "method": method}))
    out = tmp_path / "noise.yaml"
    asked = ["search-noise", str(spec), "--out", str(out), "--candidates", "3", "--metric", "perceptual"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    found = NoiseFile.read(out)
    assert found.metric == "perceptual" and found.scans == ["12 parallel views over 180 of 180 degrees"]
    assert len(set(found.errors.values())) == 3 and 0 < min(found.errors.values()) < max(found.errors.values()) < 1

    def solve(views: int, **more: Any) -> tuple[np.ndarray, Any]:
        given = {"path": str(ct_file), "simulate": {"views": views}}
        settings = {**found.method, "frozen_noise": str(out), **more}
        spec = job(input=given, acquisition="ct-parallel", method=settings, seed=found.seed)
        volume, _, report = reconstructed(spec, tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        return volume, report

    # The job's seed is the one that was found.
    assert np.array_equal(solve(12)[0], solve(12, frozen_noise="random")[0])
    notes = solve(13)[1].notes
    assert any("searched for 12 parallel views over 180 of 180 degrees; the data are of 13" in note for note in notes)


def test_a_solver_without_noise_has_none_to_search(tmp_path: Path) -> None:
    for method in ("tv", "diffpir"):
        spec = job(input={"path": "x.nii.gz", "simulate": {}}, acquisition="ct-parallel", method=method)
        with pytest.raises(InputError, match="no noise that decides its result"):
            task_of_job(spec, {"input": tmp_path / "x.nii.gz"})


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shipped_priors_refine_slices_never_trained_on(tmp_path: Path, factor: int) -> None:
    """Thick slices, seen from the side: the frozen noise and the shipped prior beat interpolation, and say so."""
    brain = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][6:8].astype(np.float32)
    volume = np.ascontiguousarray(brain.transpose(1, 2, 0))  # the prior's planes are the sample's slices
    nifti.write(tmp_path / "brain.nii.gz", volume, np.diag([0.9, 0.9, 0.9, 1.0]), "test")
    acquisition = {"kind": "mri-superresolution", "factor": factor, "direction": "slices"}
    known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": {}}
    spec = job(input=known, acquisition=acquisition, method="boundary", output={"montage": False})
    _, _, report = reconstructed(spec, tmp_path / "out")
    quality = psnr(report)
    assert quality["boundary"] > quality["interpolation"] + 1.0
    assert report.prior is not None and Card.model_validate({**report.prior, "familiarity": None}).for_factor(factor)
    assert report.network_evaluations == 2 * 5
    assert report.frozen_noise is not None and report.frozen_noise.amplitude == 0


@pytest.mark.parametrize("path", sorted(frozen_noise.FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_noise_fits_the_shipped_priors(path: Path) -> None:
    found = NoiseFile.read(path)
    for direction in ("plane", "slices"):
        assert of_settings(Boundary(detail=1), registry.card_of(path.stem), direction, 12345) == (
            found.seed, "shipped", None
        )  # fmt: skip


def test_random_noise_is_the_jobs() -> None:
    card = registry.card_of("brain-mri-sr")
    assert of_settings(Boundary(frozen_noise="random"), card, "plane", 12345) == (12345, "random", None)
    amplitudes = [
        Boundary(**given).noise_amplitude
        for given in ({}, {"frozen_noise": "random"}, {"amplitude": 0.3}, {"detail": 0.5}, {"detail": 1})
    ]
    assert amplitudes == [0, 1, 0.3, 1, 1]
    assert Boundary(detail=0.5, frozen_noise="random").expected_amplitude == 0


def stacks_of(truth: np.ndarray, folder: Path, tilt: float = 8.0, shift_mm: float = 0.0) -> dict[str, Any]:
    """Two stacks of a volume as NIfTI, the second across the first, tilted and twice as bright; acquisition of both."""
    kind = MRISuperResolution(factor=4, direction="slices", profile="gaussian")
    low = downsampling(kind, truth.shape).forward(in_planes(torch.from_numpy(truth).to(torch.complex64), kind))
    first = from_planes(low, kind).abs().numpy()
    nifti.write(folder / "first.nii.gz", first, AFFINE @ np.linalg.inv(kind.result_affine(np.eye(4), first.shape)), "-")
    # Its slices go along the first one's rows, its rows along the slices.
    across = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [tilt, -tilt / 2, tilt], degrees=True).as_matrix() @ across
    size = (truth.shape[1] // 4, truth.shape[0], truth.shape[2])
    middle = turned[:3, :3] @ ((np.array([size[2], size[1], 4 * size[0]]) - 1) / 2)
    turned[:3, 3] = (np.array(truth.shape[::-1]) - 1) / 2 - middle + shift_mm
    stack = Stack(size, 4.0, turned, "gaussian")
    both = StackSet(truth.shape, Stack(first.shape, 4.0, np.eye(4), "gaussian"), [stack] if not shift_mm else [])
    second = np.ones(size, np.float32)
    if not shift_mm:
        tall = torch.from_numpy(truth).to(torch.complex64).permute(2, 0, 1).reshape(1, *both.domain.shape)
        second = both.forward(tall)[0, -int(np.prod(size)) :].reshape(size).abs().numpy()
    placed = AFFINE @ turned
    coarse = placed @ np.linalg.inv(kind.result_affine(np.eye(4), size))
    nifti.write(folder / "second.nii.gz", 2 * second, coarse, "-")
    return {**kind.model_dump(exclude_unset=True), "kind": kind.kind, "second_stack": str(folder / "second.nii.gz")}


def head(shape: tuple[int, int, int]) -> np.ndarray:
    """A head-like volume with structure in every direction, air around it."""
    grid = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in shape), indexing="ij")
    inside = sum(g**2 for g in grid) < 1
    return (inside * (1 + 0.4 * np.sin(11 * grid[0] + 4 * grid[1]) * np.cos(10 * grid[1]))).astype(np.float32)


def test_two_stacks_are_one_job(tmp_path: Path) -> None:
    """What one stack cannot tell along its slices the other does: nearer to the truth, in the first one's place."""
    truth = head((24, 32, 22))
    acquisition = stacks_of(truth, tmp_path)
    alone = {name: value for name, value in acquisition.items() if name != "second_stack"}

    def error(given: dict[str, Any], method: Any) -> tuple[float, Any]:
        spec = job(input=str(tmp_path / "first.nii.gz"), acquisition=given, method=method)
        volume, affine, report = reconstructed(spec, tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        assert volume.shape == truth.shape and np.allclose(affine, AFFINE, atol=1e-4)
        return float(np.sqrt(np.mean((volume - truth) ** 2))), report

    for method in ({"name": "tv", "dimensions": 2, "iterations": 40}, {"name": "boundary", "steps": 2}):
        one, (both, report) = error(alone, method)[0], error(acquisition, method)
        assert both < 0.9 * one
        assert any("second stack" in note and "2 times as bright" in note for note in report.notes)
    assert tuple(report.shape) == truth.shape and report.network_evaluations == 2 * truth.shape[2]


def test_stacks_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    truth = head((16, 24, 20))
    acquisition = stacks_of(truth, tmp_path, shift_mm=500)
    spec = job(input=str(tmp_path / "first.nii.gz"), acquisition=acquisition, method="interpolation")
    with pytest.raises(GeometryError, match=r"acquisition\.second_stack: stack 2 does not overlap the first: 0 %"):
        reconstructed(spec, tmp_path / "out")
    with pytest.raises(InputError, match="second_stack has no effect with direction: plane"):
        job(input="a.nii", acquisition={**acquisition, "direction": "plane", "profile": None}, method="interpolation")


def test_thick_ct_slices_are_refined_in_hounsfield_units(tmp_path: Path) -> None:
    """Five-fold thick slices of a body: in HU from end to end, air is air, and a prior of patients helps."""
    volume = nifti.read(SAMPLES / "ct_body.nii.gz")[0][20:50, 30:78, 40:56]
    nifti.write(tmp_path / "body.nii.gz", np.ascontiguousarray(volume), np.diag([3.0, 3, 3, 1]), "test")
    acquisition = {"kind": "ct-superresolution", "factor": 3, "profile": "gaussian"}

    def solved(method: Any) -> tuple[np.ndarray, Any]:
        known = {"path": str(tmp_path / "body.nii.gz"), "simulate": {"noise_std": 0.01}}
        spec = job(input=known, acquisition=acquisition, method=method)
        found, _, report = reconstructed(spec, tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        return found, report

    quality = {}
    for method in ("interpolation", "tv", {"name": "red-diff", "steps": 6}):
        found, report = solved(method)
        name = method if isinstance(method, str) else "red-diff"
        quality[name] = psnr(report)[name]
        assert report.unit == "HU" and found.shape == volume.shape
        assert abs(float(np.median(found)) - float(np.median(volume))) < 30
    assert report.noise_std == pytest.approx(10 * 0.02 / 1000)  # 10 HU, of attenuation
    assert min(quality["tv"], quality["red-diff"]) > quality["interpolation"] + 0.5


def test_a_ct_stack_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CT is refined between its slices"):
        job(input="a.nii", acquisition={"kind": "ct-superresolution", "direction": "plane"}, method="tv")
    with pytest.raises(InputError, match="boundary does not fit ct-superresolution"):
        job(input="a.nii", acquisition="ct-superresolution", method="boundary")
    nifti.write(tmp_path / "mri.nii.gz", blob((6, 20, 20), (2, 9, 9)), AFFINE, "test")
    spec = job(input=str(tmp_path / "mri.nii.gz"), acquisition="ct-superresolution", method="interpolation")
    with pytest.raises(InputError, match="a CT volume in HU has air near -1000"):
        reconstructed(spec, tmp_path / "out")
