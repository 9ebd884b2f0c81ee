"""Files that a specification names: paths on this machine or uploads on a server."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from recon.spec.base import Strict

UPLOAD_ID = r"^[a-z2-7]{26}$"
FOLDER_MEDIA_TYPE = "application/x-tar"
"""Media type of a folder on its way to a server. Tar: its length follows from names and sizes, any piece of it can be
made anew without those before, and without compression it holds no more than was sent."""
MOST_FILES = 100_000
"""Files of a folder that is uploaded, at most."""
LONGEST_NAME = 1000
"""Bytes of the name of a file in such a folder, its folders included."""


def inner_name(name: str) -> str:
    """Normalise the name of a file inside a folder; raises ValueError unless it is relative and stays inside."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name[:200]!r} is no place inside the folder")
    return "/".join(parts)


class File(Strict):
    """A file or folder: a `path` on this machine (command line, Python) or the id of an `upload` (API)."""

    path: str | None = None
    """Path on this machine (command line and Python), relative to the specification; or a pattern, as ``scan/*.tif``:
    what it matches is read as a folder."""
    upload: str | None = Field(None, pattern=UPLOAD_ID)
    """Id of an upload (API)."""
    file: Annotated[str, AfterValidator(inner_name)] | None = Field(None, max_length=LONGEST_NAME)
    """File to read, where `path` or `upload` is a folder: its name inside, as ``scan/master.nxs``. Default: the folder
    itself, or the only file in it that can be read."""

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> File:
        if (self.path is None) == (self.upload is None):
            raise ValueError("give either path or upload")
        return self
