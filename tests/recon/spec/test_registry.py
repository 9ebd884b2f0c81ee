"""Registries: rows are imported when they are asked for, names are unique, other packages add rows."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from recon.spec import registry
from recon.spec.registry import Registry

GROUP = "recon.things"


def test_a_row_is_imported_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asked_for.py").write_text("FOUND = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    things: Registry[object] = Registry(GROUP, {"one": "asked_for:FOUND", "missing": "no_such_module:FOUND"})
    assert list(things) == ["one", "missing"] and len(things) == 2 and "one" in things
    assert "asked_for" not in sys.modules
    assert things["one"] is things["one"] is sys.modules["asked_for"].FOUND
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        things["missing"]
    with pytest.raises(KeyError):
        things["two"]
    assert things.get("two") is None


def test_rows_of_other_packages_come_after_ours_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint(name, f"json:{name}", GROUP) for name in ("loads", "dumps")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == GROUP else [])
    things: Registry[object] = Registry(GROUP, {"zero": "json:load"})
    assert list(things.items()) == [("zero", json.load), ("dumps", json.dumps), ("loads", json.loads)]
    assert list(Registry("recon.others", {"zero": "json:load"})) == ["zero"]


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("zero", "json:loads", group)])
    things: Registry[object] = Registry(GROUP, {"zero": "json:load"})
    with pytest.raises(ValueError, match=f"adds 'zero' to {GROUP}, a name that is taken"):
        list(things)


PACKAGE = '''
from typing import Literal

from recon.problem.problem import Progress
from recon.spec.costs import Cost
from recon.spec.methods.base import MethodSettings


class Nothing(MethodSettings):
    """An empty volume."""

    SOLVER = "nothing:solve"
    FOR = ("ct-fan",)
    name: Literal["nothing"] = "nothing"
    height: float = 1.0

    def cost(self, acquisition):
        return Cost(volumes=1, products=0)


def solve(problem, settings):
    volume = problem.zeros() + settings.height
    yield Progress(1, 1, volume, problem)
    return volume
'''
USE = """
import torch
from operators.resolution import SlabAverage
from operators.errors import InputError
from recon.problem.problem import Problem, run
from recon.solvers.registry import start
from recon.spec.job import JobSpec

value = {"input": "a.npy", "acquisition": "ct-fan", "method": {"name": "nothing", "height": 2}}
job = JobSpec.parse(value)
problem = Problem(SlabAverage(4, 4, 2), torch.zeros(3, 2, 4))
assert torch.equal(run(start(problem, job.method)), torch.full((3, 4, 4), 2.0))
for wrong in ({**value, "acquisition": "ct-parallel"}, {**value, "method": {"name": "nothing", "height": "tall"}}):
    try:
        JobSpec.parse(wrong)
    except InputError as error:
        print(error.field)
"""


def test_an_installed_package_adds_a_method(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text(PACKAGE)
    metadata = tmp_path / "nothing-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[recon.methods]\nnothing = nothing:Nothing\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["method", "method.height"]
