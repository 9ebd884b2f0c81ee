"""`recon samples` gives a beginner data and a job that runs as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from operators.errors import Conflict, InputError
from recon.cli.main import app
from recon.formats import reader
from recon.samples.shipped import SHIPPED
from recon.spec.job import JobSpec, local_files

runner = CliRunner()


def test_all_are_listed() -> None:
    done = runner.invoke(app, ["samples"])
    assert done.exit_code == 0 and all(name in done.output for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_copy_can_be_reconstructed_as_it_is(name: str, tmp_path: Path) -> None:
    done = runner.invoke(app, ["samples", name, "--out", str(tmp_path)])
    assert done.exit_code == 0 and f"recon run {tmp_path / name}.yaml" in done.output.replace("\n", "")
    spec = JobSpec.read(tmp_path / f"{name}.yaml")
    assert (tmp_path / SHIPPED[name].file).read_bytes() == SHIPPED[name].path.read_bytes()
    reader.check(spec, local_files(spec))


def test_nothing_is_overwritten_and_an_unknown_name_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "tooth.yaml").write_text("mine")
    done = runner.invoke(app, ["samples", "tooth", "--out", str(tmp_path)])
    assert isinstance(done.exception, Conflict) and (tmp_path / "tooth.yaml").read_text() == "mine"
    assert not (tmp_path / SHIPPED["tooth"].file).exists()
    done = runner.invoke(app, ["samples", "tooht"])
    assert isinstance(done.exception, InputError) and "tooth" in str(done.exception)
