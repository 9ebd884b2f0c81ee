"""Files that are whole or not there, and locks that end with their holder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from operators.errors import Conflict, InputError
from recon.storage.atomic import atomic_write, check_new, write_json
from recon.storage.locks import locked, try_lock, try_lock_open


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write(b"half")
        raise RuntimeError("killed here")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    def full(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a", []

    def synced(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((place, path.exists(), place.stat().st_size))

    monkeypatch.setattr(os, "fsync", synced)
    with atomic_write(path, durable=False) as stream:
        stream.write(b"content")
    assert [(p.parent, *rest) for p, *rest in seen] == [(tmp_path, False, 7)] and path.read_bytes() == b"content"
    path.unlink()
    with atomic_write(path) as stream:
        stream.write(b"content")
    file, folder = seen[1:]
    assert (file[0].parent, *file[1:]) == (tmp_path, False, 7) and folder[:2] == (tmp_path, True)


def test_a_lock_is_held_by_one_or_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), try_lock(path) as free:
        assert not free
    with locked(path, shared=True), locked(path, shared=True), try_lock(path) as free:
        assert not free
    with try_lock(path) as free, path.open("a") as other:
        assert free and not try_lock_open(other)
    with path.open("a") as stream:
        assert try_lock_open(stream)


def test_what_can_be_made_is_told_beforehand(tmp_path: Path) -> None:
    check_new(tmp_path / "a" / "b" / "c")
    (tmp_path / "file").touch()
    with pytest.raises(Conflict, match="exists already"):
        check_new(tmp_path / "file")
    check_new(tmp_path / "file", replace=True)
    with pytest.raises(Conflict, match="exists already"):
        check_new(tmp_path, replace=True)  # a folder is not replaced
    for below in ("file/a", "file/a/b"):
        with pytest.raises(InputError, match=r"cannot be made: .*file is a file|Not a directory"):
            check_new(tmp_path / below)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for replace in (False, True):
        with pytest.raises(InputError, match="a link to nothing"):
            check_new(tmp_path / "link", replace=replace)
    with pytest.raises(InputError, match="cannot be made: File name too long"):
        check_new(tmp_path / ("a" * 300))
