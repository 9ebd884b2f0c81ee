"""Settings of a deployment, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from operators.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Where jobs live, how to reach Redis, what is accepted.

    Read from RECON_STORE, REDIS_URL, RECON_MAX_UPLOAD_BYTES and RECON_MIN_FREE_BYTES.
    """

    store: Path
    redis_url: str
    max_upload_bytes: int
    min_free_bytes: int

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment; every variable has a default for one machine."""
        return cls(
            store=Path(os.environ.get("RECON_STORE", "store")).resolve(),
            redis_url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            max_upload_bytes=_integer("RECON_MAX_UPLOAD_BYTES", 8 * 2**30),
            min_free_bytes=_integer("RECON_MIN_FREE_BYTES", 2**30),
        )


def _integer(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise InputError(f"{text!r} is not a number of bytes", field=name, remedy="give a whole number")
    return int(text)
