"""Files that a specification names: paths on this machine or uploads on a server."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from recon.spec.base import Strict

UPLOAD_ID = r"^[a-z2-7]{26}$"


class File(Strict):
    """A file: a `path` on this machine (command line, Python) or the id of an `upload` (API)."""

    path: str | None = None
    """Path on this machine (command line and Python), relative to the specification."""
    upload: str | None = Field(None, pattern=UPLOAD_ID)
    """Id of an upload (API)."""

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> File:
        if (self.path is None) == (self.upload is None):
            raise ValueError("give either path or upload")
        return self
