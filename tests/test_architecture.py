"""Imports point one way, and nothing that must stay light becomes heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import recon

ROOT = Path(__file__).parent.parent
ORDER = ["operators", "recon", "workers", "api"]


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    above = set(ORDER[ORDER.index(package) + 1 :])
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            found = {n.split(".")[0] for n in names} & above
            assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_only_commands_come_in_by_the_front_door() -> None:
    """`import recon` would hide which room is meant, and a relative import is seen by no test here."""
    for package in ORDER:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{where} imports relatively"
                    shown = {a.name for a in node.names} & set(recon.__all__) if node.module == "recon" else set()
                    assert not shown or "cli" in path.parts, f"{where} imports {shown} from recon"
                if isinstance(node, ast.Import):
                    names = {a.name for a in node.names}
                    assert "recon" not in names or "cli" in path.parts, f"{where} imports recon"


def imports() -> dict[str, set[str]]:
    """Every file of ours, by its dotted name, and the files of ours that it imports anywhere."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ORDER
        for path in (ROOT / package).rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= inner & files.keys()
                if any(f"{node.module}.{alias.name}" not in files for alias in node.names):
                    wanted.add(node.module)
        found[name] = wanted & files.keys() - {name}
    return found


def rooms() -> list[str]:
    """Rooms of recon in the order of docs/explanation/architecture.md."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    table = text.split("## Rooms of recon")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_document_names_every_room() -> None:
    here = {p.stem for p in (ROOT / "recon").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert sorted(rooms()) == sorted(here - {"__init__"})


def test_a_room_imports_only_from_rooms_above_it() -> None:
    order = rooms()
    for name, wanted in imports().items():
        if not name.startswith("recon."):
            continue
        room = name.split(".")[1]
        for other in wanted:
            if other.startswith("recon."):
                there = other.split(".")[1]
                assert order.index(there) <= order.index(room), f"{name} imports {other}"


def test_no_files_import_each_other() -> None:
    graph = imports()
    del graph["recon"]  # the front door imports what it shows, when it is asked for
    TopologicalSorter({name: wanted - {"recon"} for name, wanted in graph.items()}).prepare()  # CycleError names them


@pytest.mark.parametrize(
    "module",
    [
        "api.app",
        "workers.app",
        "workers.tasks",
        "recon.client.client",
        "recon.planning.plan",
        "recon.formats.sandbox",
        "recon.cli.main",
    ],
)
def test_stays_light(module: str) -> None:
    """A Celery parent that imported torch would hang its forked children; the API needs no network."""
    heavy = "{'torch', 'astra', 'monai', 'sigpy', 'openvino'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_files_are_not_long() -> None:
    """One reason to change is what counts; beyond so many lines there is more than one."""
    for package in ORDER:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 600, path


def test_the_front_door() -> None:
    """Every public name is there, and none is imported before it is used."""
    code = "import sys, recon; print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
    for name in recon.__all__:
        assert getattr(recon, name) is not None and name in dir(recon)
    with pytest.raises(AttributeError, match="nothing"):
        _ = recon.nothing
    assert recon.__version__ == version("diffusion-recon")
    for package in ORDER:
        assert (ROOT / package / "py.typed").is_file()
