"""Names of a specification: an old one is refused with its new one, and those that stayed are still understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.errors import InputError
from recon.priors import registry as priors
from recon.spec.acquisitions import methods_of
from recon.spec.base import Strict
from recon.spec.job import JobSpec
from recon.spec.methods import method_of
from recon.spec.registry import ACQUISITIONS, METHODS, RENAMED_KINDS, RENAMED_METHODS
from recon.training.recipe import Recipe

ACQUISITION_OF = {"boundary": "mri-superresolution"}
"""Where it is not ct-parallel."""
SPLITTING = {"data_sigma": "min_noise_std", "noise_share": "noise_fraction", "z_weight": "tv_z_weight"}
OF_METHODS: dict[str, dict[str, str]] = {
    "tv": {"least_weight": "min_weight", "noise_share": "weight_per_noise"},
    "diffpir": {**SPLITTING, "skip": "skip_threshold"},
    "dds": {**SPLITTING, "calibration": "frozen_noise"},
    "red-diff": {
        **SPLITTING, "calibration": "frozen_noise", "turned": "equivariant", "skip": "skip_threshold",
        "polish": "pnp_steps",
    },
    "diffusion-mbir": {**SPLITTING, "calibration": "frozen_noise"},
    "boundary": {"data_sigma": "min_noise_std", "calibration": "frozen_noise"},
}  # fmt: skip
OF_ACQUISITIONS: dict[str, dict[str, str]] = {
    "ct-parallel": {"photons": "photons_per_ray"},
    "ct-fan": {"photons": "photons_per_ray"},
    "ct-cone": {"photons": "photons_per_ray"},
    "ct-laminography": {"photons": "photons_per_ray"},
    "mri-cartesian": {"calibration_width": "acs_width"},
}


def cases() -> list[tuple[dict[str, Any], str, str]]:
    """What is changed in a specification, the field that is old, and its new name."""
    found: list[tuple[dict[str, Any], str, str]] = [
        ({"notify": "https://example.org"}, "notify", "webhook_url"),
        ({"input": {"path": "a.nii", "simulate": {"photons": 1e5}}}, "input.simulate.photons", "photons_per_ray"),
        ({"input": {"path": "a.nii", "simulate": {"pattern": "uniform"}}}, "input.simulate.pattern", "equispaced"),
        ({"acquisition": "mri-resolution"}, "acquisition.kind", "mri-superresolution"),
        ({"acquisition": {"kind": "mri-resolution", "factor": 4}}, "acquisition.kind", "mri-superresolution"),
        ({"method": "annealed"}, "method.name", "diffpir"),
        ({"method": {"name": "annealed", "steps": 3}}, "method.name", "diffpir"),
    ]
    for method, names in OF_METHODS.items():
        acquisition = ACQUISITION_OF.get(method, "ct-parallel")
        for old, new in names.items():
            found.append(({"acquisition": acquisition, "method": {"name": method, old: 1}}, f"method.{old}", new))
    for kind, names in OF_ACQUISITIONS.items():
        for old, new in names.items():
            found.append(({"acquisition": {"kind": kind, old: 16}, "method": "tv"}, f"acquisition.{old}", new))
    return found


@pytest.mark.parametrize(("change", "field", "new"), cases(), ids=lambda v: v if isinstance(v, str) else "")
def test_an_old_name_is_refused_with_its_new_one(change: dict[str, Any], field: str, new: str) -> None:
    with pytest.raises(InputError) as caught:
        JobSpec.parse({"input": "a.npy", "acquisition": "ct-parallel", "method": "fbp", **change})
    assert caught.value.field == field
    assert f"is now called {new}" in caught.value.message and caught.value.remedy


def test_every_name_that_was_changed_is_tried_here() -> None:
    known = {(old, new) for names in (*OF_METHODS.values(), *OF_ACQUISITIONS.values()) for old, new in names.items()}
    known |= {("notify", "webhook_url"), ("axis", "intensity_range")}
    assert {pair for model in models(Strict) for pair in vars(model).get("RENAMED", {}).items()} == known
    assert (RENAMED_KINDS, RENAMED_METHODS) == ({"mri-resolution": "mri-superresolution"}, {"annealed": "diffpir"})


def models(base: type[Strict]) -> set[type[Strict]]:
    found = {base}
    for model in base.__subclasses__():
        if model.__module__.startswith("recon."):
            found |= models(model)
    return found


def test_cards_and_recipes_say_the_new_name_too(tmp_path: Path) -> None:
    card = yaml.safe_load((priors.WEIGHTS / "ct.yaml").read_text())
    card["axis"] = card.pop("intensity_range")
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(InputError, match=r"method\.prior: old\.yaml is not .*: axis is now called intensity_range"):
        priors.card_of(str(tmp_path / "old.yaml"))
    recipe = Recipe.named("ct").model_dump(mode="json")
    recipe["axis"] = recipe.pop("intensity_range")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=r"recipe: .* is not a recipe: axis is now called intensity_range"):
        Recipe.read(tmp_path / "recipe.yaml")


LEVELS = {"prior": "mine", "steps": 9, "schedule": "geometric", "sigma_first": 0.9, "sigma_last": 0.1}
STEPS = {**LEVELS, "cg_iterations": 2, "start": "zero"}
KEPT: dict[str, dict[str, Any]] = {
    "auto": {"candidates": ["tv", "dds"], "seconds": 60.0},
    "fbp": {"window": "hann"},
    "sirt": {"iterations": 3},
    "cgls": {"iterations": 3},
    "tv": {"weight": 0.01, "iterations": 3, "cg_iterations": 2, "dimensions": 2},
    "l1-wavelet": {"min_weight": 0.01, "weight_per_noise": 0.2, "iterations": 3},
    "low-rank": {"min_weight": 0.01, "weight_per_noise": 0.2, "block_width": 4, "iterations": 3},
    "zero-filled": {},
    "gridding": {},
    "cg-sense": {"iterations": 3, "weight": 0.1},
    "interpolation": {},
    "diffpir": STEPS,
    "dds": {**STEPS, "preset": "paper", "eta": 0.3, "gamma": 2.0},
    "red-diff": {
        **STEPS, "preset": "paper", "update": "proximal", "antithetic": True, "learning_rate": 0.5, "decay": "none",
        "weight": 2.0, "weighting": "linear", "data_weight": 1.0, "reduction": "mean", "sigma_x0": 0.1, "average": 0.3,
    },
    "diffusion-mbir": {
        **STEPS, "start": "classical", "preset": "paper", "eta": 1.0, "snr": 0.2, "penalty": 0.1, "threshold": 0.1,
        "consistency": False,
    },
    "dps": {**LEVELS, "scale": 2.0},
    "boundary": {
        **LEVELS, "start": "noise", "amplitude": 0.5, "order": 1, "consistency": False, "cg_iterations": 3,
    },
    "ct-parallel": {
        "angles_rad": [0.0, 1.0], "detector_mm": 1.0, "detector_shift_mm": 0.5, "pixel_mm": 1.0, "rows": 9, "cols": 8,
        "slice_mm": 2.0, "mu_water_per_mm": 0.02, "noise_std": 0.1,
    },
    "ct-fan": {"source_origin_mm": 100.0, "origin_detector_mm": 50.0, "rotation_center_column": 4.0},
    "ct-cone": {"source_origin_mm": 100.0, "row_mm": 0.5, "slices": 9, "helix_pitch_mm": 20.0},
    "ct-laminography": {"axis_tilt_rad": 0.5, "row_mm": 0.5, "slices": 9, "object_goes_on": True},
    "mri-cartesian": {
        "mask": "m.npy", "coil_maps": "c.npy", "pixel_mm": 1.0, "slice_mm": 2.0, "noise_std": 0.1,
    },
    "mri-noncartesian": {
        "trajectory_per_m": "t.npy", "rows": 9, "cols": 8, "density": "ramp", "density_weights": "w.npy",
        "coil_maps": "c.npy", "first_axis": "coils", "acs_width": 9, "pixel_mm": 1.0, "slice_mm": 2.0, "noise_std": 0.1,
    },
    "mri-superresolution": {"factor": 3, "direction": "slices", "pixel_mm": 1.0, "slice_mm": 2.0, "noise_std": 0.1},
    "ct-superresolution": {"factor": 3, "profile": "slr", "gap": 0.1, "noise_std": 10.0},
}  # fmt: skip
"""Fields that were never renamed."""


@pytest.mark.parametrize("kind", ACQUISITIONS)
def test_acquisitions_keep_their_other_names(kind: str) -> None:
    given = JobSpec.parse({"input": "a.npy", "acquisition": {"kind": kind, **KEPT[kind]}, "method": "tv"}).acquisition
    assert given is not None and given.model_fields_set == {"kind", *KEPT[kind]}


@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_their_other_names(name: str) -> None:
    acquisition = next(found for found in (kind() for kind in ACQUISITIONS.values()) if name in methods_of(found))
    value = {"input": "a.npy", "acquisition": acquisition.kind, "method": {"name": name, **KEPT[name]}}
    method = JobSpec.parse(value).method
    assert {field: getattr(method, field) for field in KEPT[name]} == KEPT[name]
    assert method_of(method.model_dump()) == method


def test_the_job_keeps_its_other_names() -> None:
    value = {
        "input": {
            "upload": "a" * 26, "format": "nifti", "dataset": "d", "scan": "s", "slices": [1, 3],
            "simulate": {
                "noise_std": 0.1, "views": 9, "coils": 2, "acceleration": 3.0, "pattern": "poisson",
                "center_fraction": 0.1, "seed": 1,
            },
        },
        "acquisition": "ct-parallel", "method": "sirt", "seed": 1, "name": "n", "tags": ["t"], "priority": "low",
        "device": "gpu",
        "output": {"format": "numpy", "baselines": ["fbp"], "montage": False, "uncertainty": 2},
    }  # fmt: skip
    found = JobSpec.parse(value).model_dump(mode="json", exclude_unset=True)
    assert found == {**value, "acquisition": {"kind": "ct-parallel"}, "method": {"name": "sirt"}}
