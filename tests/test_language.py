"""Docstrings say what a thing is, field descriptions say their units; see tools/language.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import language


def test_docstrings_and_fields_read_at_first_sight() -> None:
    assert not language.faults()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""Of the noise, the share that counts."""', "leaves out the subject"),
        ('def f() -> int:\n    """How many there are."""', "leaves out the subject"),
        ('def f() -> None:\n    """Volumes on disk."""', "is no verb"),
        ('def f() -> int:\n    """Number of jobs that nobody computes."""', "say who"),
        ('class A:\n    x: int = 0\n    """What it is."""', "leaves out the subject"),
        ('def f() -> int:\n    """Number of slices."""', ""),
        ('def f() -> None:\n    """Write the report."""', ""),
    ],
)
def test_it_finds_what_it_is_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, fault: str) -> None:
    monkeypatch.setattr(language, "ROOT", tmp_path)
    monkeypatch.setattr(language, "PACKAGES", ("package",))
    monkeypatch.setattr(language, "_fields", list)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text(source)
    found = language.faults()
    assert [fault in one for one in found] == ([True] if fault else [])
