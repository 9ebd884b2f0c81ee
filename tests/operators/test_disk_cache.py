"""What is kept on disk: the same arrays again, or built again; never others, and never more than the limit."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators import disk_cache
from operators.disk_cache import Arrays, DiskCache

PARENT = Path(__file__).parent.parent.parent
LIMIT = 1_000_000


class Built:
    """Arrays that are counted when they are built."""

    def __init__(self, number: int = 0, count: int = 1000) -> None:
        self.number, self.count, self.times = number, count, 0

    def __call__(self) -> Arrays:
        self.times += 1
        return {"values": np.arange(self.count, dtype=np.float32) + self.number, "empty": np.zeros((0, 3), np.int32)}


def same(arrays: Arrays) -> Arrays:
    return arrays


def got(cache: DiskCache, build: Built) -> Arrays:
    """The arrays of `build`, by way of the cache, checked."""

    found = cache.get("numbers", {"number": build.number}, build, same, same)
    assert found["values"].dtype == np.float32 and found["empty"].shape == (0, 3)
    assert np.array_equal(found["values"], np.arange(build.count) + build.number)
    return found


def entry(folder: Path) -> Path:
    """The only file in a folder."""
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "of" / "mine", LIMIT)


def test_what_was_built_is_read_by_the_next_process(cache: DiskCache) -> None:
    build = Built()
    built, read = got(cache, build), got(DiskCache(cache.folder, LIMIT), build)
    assert build.times == 1
    assert {name: array.tobytes() for name, array in built.items()} == {n: a.tobytes() for n, a in read.items()}
    assert read["values"].flags.writeable, "as what was built is"
    got(cache, Built(1))
    assert len(list(cache.folder.iterdir())) == 2
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def one_bit_turned(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(500).tobytes())] ^= 1
    path.write_bytes(content)


def of_another_key(path: Path) -> None:
    np.savez(path, key=np.array("another"), values=np.ones(1000, np.float32), empty=np.zeros((0, 3), np.int32))


def without_a_key(path: Path) -> None:
    np.savez(path, values=np.ones(1000, np.float32))


def an_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(1000, np.float32))


def a_pickle(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, key=np.array([{}], dtype=object), values=np.array([{}], dtype=object))


def a_text(path: Path) -> None:
    path.write_text("no archive")


def an_archive_of_texts(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("key.npy", "no array")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FOREIGN = [
    truncated, emptied, one_bit_turned, of_another_key, without_a_key, an_array, a_pickle, a_text, an_archive_of_texts,
]  # fmt: skip


@pytest.mark.parametrize("damage", FOREIGN)
def test_a_damaged_or_foreign_file_is_noticed_and_written_again(
    damage: Callable[[Path], None], cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    build = Built()
    got(cache, build)
    damage(entry(cache.folder))
    got(cache, build)
    assert build.times == 2
    assert f"{entry(cache.folder)} is damaged, building it again" in caplog.text
    got(cache, build)
    assert build.times == 2 and caplog.text.count("is damaged") == 1


def test_what_its_owner_refuses_is_built_again(cache: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    """A checksum says that it is what was written, not that this version of a library can load it."""

    def refused(arrays: Arrays) -> Arrays:
        raise RuntimeError("made by another version")

    build = Built()
    for _ in range(2):
        cache.get("numbers", {}, build, same, refused)
    assert build.times == 2 and "building it again: made by another version" in caplog.text


def test_a_folder_in_the_place_of_a_file_costs_nothing_but_time(
    cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    build = Built()
    got(cache, build)
    a_folder(entry(cache.folder))
    got(cache, build)
    assert build.times == 2 and "it cannot be written" in caplog.text


def test_at_the_limit_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    first = [Built(number) for number in range(3)]
    cache = DiskCache(tmp_path, 3 * 5500)  # each takes about 4.8 kB
    for age, build in zip((300, 200, 100), first, strict=True):
        got(cache, build)
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (time.time() - age,) * 2)
    (tmp_path / "of-mine.npz").write_bytes(bytes(20_000))  # no file of the cache: it neither counts nor goes
    got(cache, first[0])  # used again: the second is now the oldest
    got(cache, Built(3))
    assert len(list(tmp_path.iterdir())) == 4
    for build in (first[0], first[2]):
        got(cache, build)
    assert [build.times for build in first] == [1, 1, 1]
    got(cache, first[1])
    assert first[1].times == 2
    assert sum(path.stat().st_size for path in tmp_path.glob("numbers-*")) <= cache.limit_bytes


def test_what_would_push_out_all_others_is_not_kept(tmp_path: Path) -> None:
    build = Built(count=20_000)
    cache = DiskCache(tmp_path, 150_000)
    got(cache, build)
    got(cache, build)
    assert build.times == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_said_once(
    code: int, cache: DiskCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, "savez", refused)
    build = Built()
    got(cache, build)
    got(cache, build)
    assert build.times == 2 and caplog.text.count("nothing is kept") == 1
    assert os.strerror(code) in caplog.text and not list(cache.folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_still_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, build = DiskCache(tmp_path, LIMIT), Built()
    got(cache, build)
    tmp_path.chmod(0o500)
    got(cache, build)
    got(cache, Built(1))
    tmp_path.chmod(0o700)
    assert build.times == 1 and caplog.text.count("Permission denied") == 1


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache, build = DiskCache(tmp_path / "file" / "folder", LIMIT), Built()
    got(cache, build)
    got(cache, build)
    assert build.times == 2 and caplog.text.count("it cannot be made: Not a directory") == 1


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_not_believed(
    mode: int, cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    build = Built()
    got(cache, build)
    cache.folder.chmod(mode)
    got(cache, build)
    got(cache, build)
    assert build.times == 3 and caplog.text.count("others can write to it") == 1


def process(code: str, *arguments: Any) -> subprocess.Popen[str]:
    """Another process that has `DiskCache` and these tests."""
    start = "import sys; from pathlib import Path; from tests.operators.test_disk_cache import *\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=PARENT, stderr=subprocess.PIPE, text=True)


KILLED = """
import os, signal
def killed(stream, **arrays):
    stream.write(b"the beginning")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
np.savez = killed
got(DiskCache(Path(sys.argv[1]), LIMIT), Built())
"""


def test_what_a_killed_process_has_begun_is_not_found_and_goes_in_time(cache: DiskCache) -> None:
    with process(KILLED, cache.folder) as killed:
        assert killed.wait() == -signal.SIGKILL
    left = entry(cache.folder)
    assert left.read_bytes() == b"the beginning" and left.suffix == ".tmp"
    build = Built()
    got(cache, build)
    got(cache, build)
    assert build.times == 1 and left.exists(), "another process may be writing it"
    old = time.time() - 2 * disk_cache.ABANDONED_S
    os.utime(left, (old, old))
    got(cache, Built(1))
    assert not left.exists()


TOGETHER = """
import logging
logging.basicConfig(level=logging.WARNING)
cache = DiskCache(Path(sys.argv[1]), 4 * 5500)
for number in range(200):
    got(cache, Built(number % 8))
"""


def test_processes_that_write_and_remove_at_once_get_what_is_right(tmp_path: Path) -> None:
    both = [process(TOGETHER, tmp_path) for _ in range(2)]
    for each in both:
        assert each.communicate()[1] == "" and each.returncode == 0
    DiskCache(tmp_path, 4 * 5500)._make_room()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 0 < sum(sizes) <= 4 * 5500 and not list(tmp_path.glob(".*"))


def test_without_a_cache_everything_is_built(monkeypatch: pytest.MonkeyPatch, cache: DiskCache) -> None:
    def key() -> dict[str, int]:
        raise AssertionError("a key is made where there is a cache")

    monkeypatch.setattr(disk_cache, "_used", None)
    build = Built()
    assert disk_cache.kept("numbers", key, build, same, same)["values"][1] == 1
    disk_cache.use(cache)
    for _ in range(2):
        disk_cache.kept("numbers", lambda: {"number": 0}, build, same, same)
    assert build.times == 2


def test_a_key_says_of_the_code_what_it_is() -> None:
    assert disk_cache.digest_of(disk_cache) != disk_cache.digest_of(disk_cache, logging)
