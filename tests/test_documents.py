"""The documentation holds against the code: reference, links, commands, specifications and programs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from recon.cli.main import app
from recon.spec.job import JobSpec
from tools import language
from tools.documents.markdown import slug
from tools.documents.pages import PAGES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FILES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
READ = [path for path in FILES if path.parent.name not in ("research-log", "benchmarks") and path.stem != "CHANGELOG"]
"""Documents whose commands are to be typed as they stand; a log and the changelog have those of their day."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> Iterator[str]:
    """Code blocks of a language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@cache
def made(name: str) -> str:
    return PAGES[name]()


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_those_of_the_code(name: str) -> None:
    assert (DOCS / "reference" / name).read_text() == made(name), "write them again: python -m tools.documents"


def test_every_field_option_and_variable_has_a_text() -> None:
    for name in PAGES:
        rows = [line for line in made(name).splitlines() if "| path |" not in line or name != "http-api.md"]
        empty = [row for row in rows if re.search(r"\|\s*\|$", row)]
        assert not empty, (name, empty)


def test_their_texts_read_at_first_sight() -> None:
    for name in PAGES:
        cells = [row.split(" | ")[-1].removesuffix(" |") for row in made(name).splitlines() if row.startswith("| ")]
        riddles = [text for text in cells if language.RIDDLES.match(text) or language.ACTORS.search(text)]
        assert not riddles, (name, riddles)


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading.replace("`", "")) for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_every_page_is_in_the_navigation() -> None:
    def pages(found: Any) -> Iterator[str]:
        if isinstance(found, str):
            yield found
        for one in found.values() if isinstance(found, dict) else found if isinstance(found, list) else []:
            yield from pages(one)

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    here = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "gallery"}
    assert sorted(listed) == sorted(here)  # a hook adds the gallery


def commands() -> Iterator[tuple[str, list[str]]]:
    """Commands of ours in the documents, each with its document."""
    for path in READ:
        for text in (*blocks(path, "sh"), *re.findall(r"`(recon [a-z][^`]*)`", path.read_text())):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["recon"]:
                    yield named(path), words[1:]


def test_every_command_and_option_exists() -> None:
    """An option that was renamed would stay in a tutorial for years."""
    group: Any = typer.main.get_command(app)
    found = list(commands())
    assert len(found) > 40
    for document, words in found:
        command = group
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        where = f"{document}: recon {' '.join(words)}"
        assert command is not group or words[0].startswith(("-", "COMMAND")), where
        known = {option for one in command.params for option in one.opts} | {"--help"}
        options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= known, f"{where}: there is no {options - known}"


def test_every_specification_is_one() -> None:
    count = 0
    for path in READ:
        for text in blocks(path, "yaml"):
            found = yaml.safe_load(text)
            if isinstance(found, dict) and "input" in found:
                JobSpec.parse(found, named(path))
                count += 1
    assert count > 5


def test_the_solver_of_the_document_solves() -> None:
    (program, *_) = blocks(DOCS / "how-to" / "add-a-solver.md", "python")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "0.08"
