"""Detection: which file of an input is read, in which format, and what beside it may be read with it.

An input is a file or a folder, a path or an upload. Of a folder one file is read, or the folder as a whole if its
format reads folders. Links and names in files lead to what lies around them: in the folder that was given, or, on this
machine, beside the file. Around an upload that is one file there is nothing of its owner's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from operators.errors import InputError
from recon.formats.format import Format
from recon.spec.files import MOST_FILES, File
from recon.spec.job import Input, format_of
from recon.spec.registry import FORMATS

_FIRST_BYTES = 132
"""Bytes that are compared with those of formats."""
_MOST_OPENED = 100
"""Files of a folder that are opened to see what they are."""
_SHOWN = 12


@dataclass(frozen=True)
class Found:
    """File or folder that is read, and how.

    Parameters
    ----------
    path
        File, or folder that the format reads as a whole.
    given
        The input; `file` is set if `path` lies in the folder that was given.
    format
        Format that reads it.
    how
        How the format was told.
    """

    path: Path
    given: Input
    format: Format
    how: str


def locate(path: Path, given: Input) -> Found:
    """Find the file or folder that an input at `path` means, and its format.

    Raises
    ------
    InputError
        If there is no such file, the format cannot be told, or several files of a folder could be meant; the remedy
        lists them.
    """
    if path.is_dir() and given.file is None:
        return _of_folder(path, given)
    path = inner(path, given)
    if path.is_dir():
        chosen = _folder_format(path, given)
        if chosen is None:
            raise InputError(f"{path.name} is a folder", field="input.file", remedy="give one of its files")
        return Found(path, given, *chosen)
    if given.format is not None:
        return Found(path, given, FORMATS[given.format], "given")
    told = _told(path)
    if told is None:
        # The name of an upload is the store's.
        name = "its first bytes" if given.path is None and given.file is None else f"the name {path.name!r}"
        raise InputError(
            f"the format cannot be told from {name}",
            field="input.format",
            remedy=f"choose one of: {', '.join(FORMATS)}",
        )
    return Found(path, given, *told)


def inner(path: Path, given: File, field: str = "input") -> Path:
    """Path of the file that is given, in the folder at `path` if that is one; raises `InputError` for none."""
    if given.file is not None:
        if not path.is_dir():
            raise InputError(f"{path.name} is no folder", field=f"{field}.file", remedy="leave it out")
        found = path / given.file
        if not found.exists():
            raise InputError(
                f"there is no {given.file!r} in the folder",
                field=f"{field}.file",
                remedy=f"choose one of: {_listed(sorted(files(path)))}",
            )
        return found
    if path.is_dir():
        names = sorted(files(path))
        if len(names) != 1:
            raise _question(names, field)
        return path / names[0]
    return path


def around(path: Path, given: File) -> Path | None:
    """Folder that what is read with a file must not leave; None around an upload that is one file."""
    if path.is_dir():
        return path
    if given.file is not None:
        return path.parents[given.file.count("/")]
    return path.parent if given.path is not None else None


def _of_folder(folder: Path, given: Input) -> Found:
    """The only thing in a folder that can be read: the folder itself, or a file in it."""
    named = sorted(files(folder))
    if not named:
        raise InputError(f"{folder.name} holds no files", field="input", remedy="check the path")
    whole, places = folder, ""
    while len({name.removeprefix(places).partition("/")[0] for name in named}) == 1 and "/" in named[0][len(places) :]:
        places += named[0][len(places) :].partition("/")[0] + "/"  # nothing but a folder: what is meant is in that
        whole = folder / places
    options: list[tuple[str, tuple[Format, str]]] = []
    as_whole = _folder_format(whole, given)
    if as_whole is not None:
        options.append((places.rstrip("/"), as_whole))
    options += list(_file_options(folder, named, given))
    readable = [option for option in options if not option[1][0].refused]
    leading = [option for option in readable or options if option[1][0].names_others]
    chosen = readable if len(readable) == 1 else leading
    if options and not readable:  # each would say what to do instead
        chosen = [*leading, *options][:1]
    options = readable or options
    if not options and given.format is not None:
        raise InputError(
            f"no file of the folder ends as {given.format} files do",
            field="input.file",
            remedy=f"name the one to read: {_listed(named)}",
        )
    if len(chosen) != 1:
        raise _question([name or "the folder itself" for name, _ in options] or named, "input")
    name, told = chosen[0]
    return Found(folder / name, given.model_copy(update={"file": name}) if name else given, *told)


def _folder_format(folder: Path, given: Input) -> tuple[Format, str] | None:
    """The only format that reads a folder with files of such names as a whole."""
    if given.format is not None:
        chosen: Format = FORMATS[given.format]
        return (chosen, "given") if chosen.folders else None
    names = [name.rpartition("/")[2].lower() for name in files(folder)]
    fits = [row for row in FORMATS.values() if row.folders and any(_ends(name, row.endings) for name in names)]
    if fits:
        return (fits[0], "the names in the folder") if len(fits) == 1 else None
    if len({_ending(name) for name in names}) != 1 or format_of(names[0]) is not None:
        return None  # no files of one kind, or of a kind that is known
    found = _told(folder / next(files(folder)))
    return (found[0], "the first bytes of its files") if found is not None and found[0].folders else None


def _file_options(folder: Path, names: list[str], given: Input) -> Iterator[tuple[str, tuple[Format, str]]]:
    """Files that can be read alone, with their formats; those that can only be told by opening them count last."""
    if given.format is not None:
        chosen: Format = FORMATS[given.format]
        yield from ((n, (chosen, "given")) for n in names if not chosen.folders and _ends(n.lower(), chosen.endings))
        return
    told = [(name, format_of(name)) for name in names if _header_of(name) not in names]
    certain = [(name, kind) for name, kind in told if kind is not None and not FORMATS[kind].folders]
    readable = [(name, kind) for name, kind in certain if not FORMATS[kind].refused]
    if readable or len(names) > _MOST_OPENED:
        yield from ((name, (FORMATS[kind], "its name")) for name, kind in readable or certain)
        return
    for name in names:
        found = None if _header_of(name) in names else _told(folder / name)
        if found is not None and not found[0].folders:
            yield name, found


def _header_of(name: str) -> str:
    """Name of the header that the numbers of a pair have, as those of NIfTI."""
    return re.sub(r"\.img(\.gz)?$", r".hdr\1", name, flags=re.IGNORECASE) if ".img" in name.lower() else ""


def _told(path: Path) -> tuple[Format, str] | None:
    """Format of a file by its name, its first bytes, or what it holds, if that leaves no doubt."""
    kind = format_of(path.name)
    if kind is not None:
        return FORMATS[kind], "its name"
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        first = stream.read(_FIRST_BYTES)
    fits: list[Format] = [row for row in FORMATS.values() if row.magic and first[row.magic_at :].startswith(row.magic)]
    if len(fits) == 1 and fits[0].certain:
        return fits[0], "its first bytes"
    recognised = [row for row in fits if row.recognises is not None and row.recognises(path)]
    return (recognised[0], "what it holds") if len(recognised) == 1 else None


def _ending(name: str) -> str:
    """Text after the last dot of a name, unless that is a number."""
    ending = Path(name).suffix
    return "" if ending[1:].isdigit() else ending


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a name has one of the endings, or is one, as ``fid``."""
    return name.endswith(endings) or f".{name}" in endings


def files(folder: Path) -> Iterator[str]:
    """Names of the files in a folder and in those in it, hidden ones left out."""
    count = 0
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            count += 1
            if count > MOST_FILES:
                raise InputError(f"{folder.name} holds more than {MOST_FILES} files", field="input")
            yield name


def _question(names: list[str], field: str) -> InputError:
    return InputError(
        f"{len(names)} files of the folder could be meant" if names else "the folder holds no files",
        field=f"{field}.file",
        remedy=f"choose one of: {_listed(names)}" if names else "check the path",
    )


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
