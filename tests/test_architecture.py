"""Imports point one way, and nothing that must stay light becomes heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("package", ["workers", "api"])
def test_no_files_import_each_other(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        found = graph.setdefault(".".join(path.relative_to(ROOT).with_suffix("").parts), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


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


def test_files_are_short() -> None:
    for package in ORDER:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
