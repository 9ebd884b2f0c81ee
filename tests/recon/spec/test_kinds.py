"""Kinds keep what is asked of every acquisition, method and format: costs, solvers, physics, readers and writers."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from operators.errors import InputError
from recon.formats.format import Format
from recon.spec.acquisitions import Acquisition, check_method, methods_of
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.files import File
from recon.spec.job import JobSpec, format_of
from recon.spec.methods import Diffusion, MethodSettings
from recon.spec.registry import ACQUISITIONS, FORMATS, METHODS, OUTPUT_FORMATS, resolve

KINDS: dict[str, Acquisition] = {name: kind() for name, kind in ACQUISITIONS.items()}
CLASSES: dict[str, type[MethodSettings]] = dict(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_cost_and_a_solver(name: str) -> None:
    settings = CLASSES[name].model_validate({"name": name})
    diffusion = isinstance(settings, Diffusion)
    wanted = ["problem", "settings", "prior", "intensity", "noise"] if diffusion else ["problem", "settings"]
    assert list(inspect.signature(resolve(settings.SOLVER)).parameters) == wanted
    fitting = [kind for kind in KINDS.values() if name in methods_of(kind)]
    assert fitting
    for acquisition in fitting:
        cost = settings.cost(acquisition)
        some = any(isinstance(part, Diffusion) for part in settings.parts(acquisition))
        assert cost.volumes > 0 and cost.products > 0 and (cost.evaluations > 0) == some


@pytest.mark.parametrize("name", METHODS)
def test_more_steps_cost_more(name: str) -> None:
    settings = CLASSES[name].model_validate({"name": name})
    steps = {"steps", "iterations"} & set(type(settings).model_fields)
    for acquisition in (kind for kind in KINDS.values() if name in methods_of(kind)):
        for field in steps:
            more = settings.model_copy(update={field: 2 * getattr(settings, field)})
            assert more.cost(acquisition).products > settings.cost(acquisition).products
            assert more.cost(acquisition).evaluations >= settings.cost(acquisition).evaluations


@pytest.mark.parametrize("kind", ACQUISITIONS)
def test_every_acquisition_has_physics_and_methods(kind: str) -> None:
    acquisition = KINDS[kind]
    assert acquisition.kind == kind
    for function, parameters in (("build", 1), ("simulate", 5)):
        found = resolve(f"{acquisition.PHYSICS}:{function}")
        assert len(inspect.signature(found).parameters) == parameters
    methods = methods_of(acquisition)
    assert set(methods) <= set(METHODS) and len(set(methods)) == len(methods)
    assert acquisition.BASELINE in methods and not issubclass(METHODS[acquisition.BASELINE], Diffusion)
    check_method(acquisition, acquisition.BASELINE)
    with pytest.raises(InputError, match=rf"^method: magic does not fit {kind} \(use one of {acquisition.METHODS[0]}"):
        check_method(acquisition, "magic")


def test_the_files_of_an_acquisition_are_those_of_their_type() -> None:
    class Gated(MRICartesian):
        """One more file than its base, and fields that are none."""

        gating: File | None = None
        label: str = "mask.npy"

    found = Gated(mask=File(path="m.npy"), gating=File(upload="a" * 26))
    assert found.files() == {"mask": found.mask, "gating": found.gating}
    assert KINDS["mri-cartesian"].files() == KINDS["ct-parallel"].files() == {}


def test_the_files_of_a_job_are_its_inputs_and_its_acquisitions(tmp_path: Path) -> None:
    acquisition = {"kind": "mri-cartesian", "mask": "m.npy", "coil_maps": {"upload": "a" * 26}}
    job = JobSpec.parse({"input": "k.npy", "acquisition": acquisition, "method": "tv"}).with_base(tmp_path)
    files = job.files()
    assert list(files) == ["input", "acquisition.mask", "acquisition.coil_maps"]
    assert [file.path for file in files.values()] == [str(tmp_path / "k.npy"), str(tmp_path / "m.npy"), None]


@pytest.mark.parametrize("name", sorted({*FORMATS, *OUTPUT_FORMATS}))
def test_every_format_is_where_its_row_says(name: str) -> None:
    for rows, function in ((FORMATS, "read"), (OUTPUT_FORMATS, "write")):
        if name in rows:
            found = rows[name]
            assert isinstance(found, Format) and found.name == name and getattr(found, function) is not None
            assert found.endings and all(ending.startswith(".") for ending in found.endings)


@pytest.mark.parametrize(
    ("file", "expected"),
    [("a.npy", "numpy"), ("A.NII.GZ", "nifti"), ("a.nii", "nifti"), ("a.h5", None), ("a.npz", None), ("a.txt", None)],
)
def test_a_format_is_told_from_a_name_that_leaves_no_doubt(file: str, expected: str | None) -> None:
    assert format_of(file) == expected
    with pytest.raises(InputError, match=f"'htm' is not one of {', '.join(FORMATS)}"):
        JobSpec.parse({"input": {"path": file, "format": "htm"}})
