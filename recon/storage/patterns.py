"""Several files as one input: what matches a pattern, as a folder of links for as long as this process lives."""

from __future__ import annotations

import tempfile
from pathlib import Path

from operators.errors import InputError

_WILDCARDS = "*?["
_folders: dict[tuple[Path, ...], tempfile.TemporaryDirectory[str]] = {}
_bases: dict[Path, Path] = {}
"""Folder of the files that a folder of links shows, both without links."""


def is_pattern(path: Path) -> bool:
    """Whether a path has wildcards, and is not the name of a file all the same."""
    return any(sign in str(path) for sign in _WILDCARDS) and not path.exists()


def matching(path: Path, field: str = "input.path") -> dict[str, Path]:
    """List the files that match, and those in folders that do, by their names below the part without wildcards.

    Raises
    ------
    InputError
        If there are none.
    """
    base, pattern = _parts(path)
    found: dict[str, Path] = {}
    for match in base.glob(str(pattern)):
        for file in match.rglob("*") if match.is_dir() else [match]:
            name = file.relative_to(base).as_posix()
            if file.is_file() and not any(part.startswith(".") for part in name.split("/")):
                found[name] = file
    if not found:
        raise InputError(f"no file matches {path.name} in {base.resolve()}", field=field, remedy="check the pattern")
    return dict(sorted(found.items()))


def gathered(path: Path, field: str = "input.path") -> Path:
    """Folder with links to the files that match, or the only one; raises `InputError` if there are none."""
    found = matching(path, field)
    if len(found) == 1:
        return next(iter(found.values()))
    key = (path, *found.values())
    if key not in _folders:
        _folders[key] = tempfile.TemporaryDirectory(prefix="recon-")
        _bases[Path(_folders[key].name).resolve()] = _parts(path)[0].resolve()
        for name, file in found.items():
            link = Path(_folders[key].name, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return Path(_folders[key].name)


def lies_in(place: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, links resolved.

    What a folder of `gathered` shows lies in it if it lies in the folder that the pattern begins with: there a link
    that leads elsewhere leads outside.
    """
    place, folder = place.resolve(), folder.resolve()
    places = [base / folder.relative_to(links) for links, base in _bases.items() if folder.is_relative_to(links)]
    return any(place.is_relative_to(root) for root in (folder, *places))


def _parts(path: Path) -> tuple[Path, Path]:
    """Folder that a pattern begins with, and the rest."""
    fixed = next(i for i, part in enumerate(path.parts) if any(sign in part for sign in _WILDCARDS))
    return Path(*path.parts[:fixed]), Path(*path.parts[fixed:])
