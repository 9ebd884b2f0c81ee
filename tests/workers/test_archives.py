"""Folders on their way to a server: what is packed comes out the same, and nothing else comes out."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from operators.errors import InputError
from recon.client import archive
from recon.client.archive import Archive
from workers import archives


def folder(place: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place


CONTENTS = {
    "scan.nxs": b"x" * 512,
    "empty.txt": b"",
    "frames/0001.tif": b"a" * 513,
    "frames/0002.tif": bytes(range(256)) * 9,
    "a/b/c/d.bin": b"1",
    "Größe " + "l" * 150 + "/µ.csv": b"0,1,2",
}


def packed(place: Path) -> bytes:
    with Archive(archive.files_of(place)) as stream:
        return stream.read()


def tree(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_a_folder_comes_out_as_it_was(tmp_path: Path) -> None:
    source = folder(tmp_path / "scan", {**CONTENTS, ".hidden": b"x", ".git/config": b"x"})
    whole = packed(source)
    assert archives.unpack(io.BytesIO(whole), tmp_path / "out") == len(CONTENTS)
    assert tree(tmp_path / "out") == CONTENTS
    with tarfile.open(fileobj=io.BytesIO(whole)) as other:  # and as anybody's tar has it
        assert sorted(other.getnames()) == sorted(CONTENTS)


def test_an_archive_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", CONTENTS)
    two = folder(tmp_path / "two", dict(reversed(CONTENTS.items())))
    os.utime(two / "scan.nxs", (0, 0))
    (two / "scan.nxs").chmod(0o600)
    assert packed(one) == packed(two)
    (two / "scan.nxs").write_bytes(b"y" * 512)
    assert packed(one) != packed(two)


def test_any_piece_of_an_archive_can_be_made_anew(tmp_path: Path) -> None:
    source = folder(tmp_path / "scan", CONTENTS)
    whole = packed(source)
    with Archive(archive.files_of(source)) as stream:
        assert len(stream) == len(whole)
        for start in range(0, len(whole), 97):
            stream.seek(start)
            piece = b""
            while len(piece) < 1000 and (more := stream.read(1000 - len(piece))):
                piece += more
            assert piece == whole[start : start + 1000]


def test_packing_takes_no_memory(tmp_path: Path) -> None:
    source = folder(tmp_path / "scan", {})
    source.mkdir()
    with (source / "large.bin").open("wb") as stream:
        stream.truncate(200 * 2**20)
    tracemalloc.start()
    with Archive(archive.files_of(source)) as packing:
        digest = hashlib.file_digest(io.BufferedReader(packing, 2**20), "sha256")
    assert digest.hexdigest() and tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_what_cannot_be_packed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "scan", {"a.tif": b"1", "b.tif": b"2"})
    (source / "linked.tif").symlink_to(source / "a.tif")
    assert len(archive.files_of(source)) == 3  # a link to a file is packed as the file
    (source / "linked.tif").unlink()
    (source / "folder").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"acquisition.mask: .*folder is no file, or a link to none"):
        archive.files_of(source, "acquisition.mask")
    (source / "folder").unlink()
    (source / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="dangling is no file"):
        archive.files_of(source)
    (source / "dangling").unlink()
    os.mkfifo(source / "pipe")
    with pytest.raises(InputError, match="pipe is no file"):
        archive.files_of(source)
    (source / "pipe").unlink()
    with Archive(archive.files_of(source)) as stream:
        (source / "b.tif").write_bytes(b"")
        with pytest.raises(InputError, match=r"b\.tif changed while it was sent"):
            stream.read()
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        archive.files_of(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        archive.files_of(tmp_path / "empty")


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_other_programs_are_unpacked(kind: int, tmp_path: Path) -> None:
    """With entries of folders, a leading dot, and long names in either manner."""
    long = "deep/" + "/".join("d" * 90 for _ in range(2)) + "/f.tif"
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=kind, pax_headers={"comment": "x"}) as made:
        for name in (".", "./deep"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            made.addfile(entry)
        for name in ("./a.tif", long if kind != tarfile.USTAR_FORMAT else "deep/f.tif"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = 3, 1.5 if kind == tarfile.PAX_FORMAT else 1
            made.addfile(entry, io.BytesIO(b"abc"))
    written.seek(0)
    assert archives.unpack(written, tmp_path / "out") == 2
    assert set(tree(tmp_path / "out").values()) == {b"abc"} and (tmp_path / "out" / "a.tif").is_file()


def tar(*members: tuple[str, bytes | str, bytes]) -> bytes:
    """An archive of names, contents or targets of links, and types."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as made:
        for name, content, kind in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(content, str):
                entry.linkname = content
                content = b""
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def zipped() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb", bytes(10**6))
    return written.getvalue()


def lying(size: bytes) -> bytes:
    """An archive whose only member says that it has another size."""
    block = bytearray(tarfile.TarInfo("a").tobuf())
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


FILE = tarfile.REGTYPE
HOSTILE: dict[str, tuple[bytes, str]] = {
    "path out": (tar(("../a", b"x", FILE)), "no place inside"),
    "path out below": (tar(("b/../../a", b"x", FILE)), "no place inside"),
    "absolute": (tar(("/etc/passwd", b"x", FILE)), "no place inside"),
    "folder out": (tar(("../b/", b"", tarfile.DIRTYPE), ("a", b"", FILE)), "no place inside"),
    "link": (tar(("a", "/etc/passwd", tarfile.SYMTYPE)), "is a link"),
    "through a link": (tar(("a", "/etc", tarfile.SYMTYPE), ("a/passwd", b"x", FILE)), "is a link"),
    "hard link": (tar(("a", b"x", FILE), ("b", "a", tarfile.LNKTYPE)), "is a link"),
    "device": (tar(("a", b"", tarfile.CHRTYPE)), "is a device"),
    "pipe": (tar(("a", b"", tarfile.FIFOTYPE)), "is a pipe"),
    "sparse": (tar(("a", b"x", tarfile.GNUTYPE_SPARSE)), "is a sparse file"),
    "twice": (tar(("a", b"x", FILE), ("./a", b"y", FILE)), "twice"),
    "file and folder": (tar(("a", b"x", FILE), ("a/b", b"y", FILE)), "a file and a folder"),
    "folder and file": (tar(("a/b", b"x", FILE), ("a", b"y", FILE)), "a file and a folder"),
    "empty": (tar(), "no files"),
    "only folders": (tar(("a", b"", tarfile.DIRTYPE)), "no files"),
    "too deep": (tar(("/".join("a" * 40), b"x", FILE)), "too deep"),
    "long name": (tar(("a" * 300, b"x", FILE)), "too long"),
    "very long name": (tar(("a/" * 100_000, b"x", FILE)), "a header of"),
    "cut in a file": (tar(("a", b"x" * 2000, FILE))[:1500], "cut short"),
    "cut in a header": (tar(("a", b"x" * 512, FILE))[:1100], "truncated header"),
    "without an end": (tar(("a", b"x" * 512, FILE))[:1024], "empty header"),
    "size below zero": (lying(b"\xff" * 12), "damaged"),
    "size beyond all": (lying(b"\x80" + b"\x7f" * 11), "cut short"),
    "no number": (lying(b"many        "), "damaged"),
    "gzip": (gzip.compress(tar(("a", b"x", FILE))), "no tar archive"),
    "zip": (zipped(), "no tar archive"),
    "nothing": (b"", "no tar archive"),
    "names that are no text": (tar(("\udcff", b"x", FILE)), "no tar archive|UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, says = HOSTILE[name]
    (tmp_path / "place").mkdir()
    with pytest.raises(InputError, match=says) as caught:
        archives.unpack(io.BytesIO(content), tmp_path / "place" / "out")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} == {"place"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_there_are_not_too_many_files_or_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    assert archives.unpack(io.BytesIO(tar(*((c, b"", FILE) for c in "abc"))), tmp_path / "out") == 3
    with pytest.raises(InputError, match="more than 3 files or folders"):
        archives.unpack(io.BytesIO(tar(*((c, b"", FILE) for c in "abcd"))), tmp_path / "many")
    with pytest.raises(InputError, match="more than 3 files or folders"):
        archives.unpack(io.BytesIO(tar(("a/b/c/d/e", b"", FILE))), tmp_path / "deep")
