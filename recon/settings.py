"""Settings of this machine, from environment variables ``RECON_*``; see docs/reference/environment.md.

``RECON_URL`` is the default of an option, which the command line reads itself.
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from operators import disk_cache
from operators.errors import InputError

PREFIX = "RECON_"
log = logging.getLogger("recon.settings")


def whole_number(unit: str, example: int) -> BeforeValidator:
    """Make the validator of an integer variable; its `InputError` names variable, value and remedy."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and not (value.isascii() and value.isdigit()):
            raise InputError(
                f"{value!r} is not a number of {unit}",
                field=variable(str(info.field_name)),
                remedy=f"give a whole number, such as {example}",
            )
        return value

    return BeforeValidator(check)


def variable(name: str) -> str:
    """Environment variable of a setting."""
    return PREFIX + name.upper()


Bytes = Annotated[int, whole_number("bytes", 8 * 2**30)]


class Settings(BaseSettings):
    """Settings for reading, planning and submitting jobs on this machine; read again on every use."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )
    max_input_bytes: Bytes = 8 * 2**30
    """Size limit in bytes of an array that a reader returns; only the slices that a job asks for count."""
    max_job_bytes: Bytes | None = None
    """Memory limit of a job in bytes; a job that is planned to need more is refused (413). Default: four fifths of the
    machine's memory, or of its container's."""
    plan: Path | None = None
    """Cost table, written by ``recon plan --measure``. Default: the shipped one."""
    cache_dir: Path | None = None
    """Folder, its owner's alone, in which system matrices and compiled networks are kept for the next start; it may be
    removed at any time. Default: `diffusion-recon` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    cache_bytes: Bytes = 2 * 2**30
    """Size limit of that folder in bytes; what was not used for longest is removed. 0 keeps nothing."""
    api_key: str | None = None
    """API key that the command line sends to a server. There is no option for it, since every user of a machine can
    see the options of running programs."""


def use_disk_cache() -> None:
    """Let this process keep what takes long to build where the settings say; see `operators.disk_cache`."""
    settings = Settings()
    disk_cache.use(_cache(settings.cache_dir or _default_folder(), settings.cache_bytes))


@lru_cache(maxsize=1)
def _cache(folder: Path | None, limit_bytes: int) -> disk_cache.DiskCache | None:
    """Cache in a folder; the same object as long as nothing changes, so that what is wrong is said once."""
    if not limit_bytes:
        return None
    if folder is None:
        log.warning("nothing is kept for the next start: there is no home folder; set %s", variable("cache_dir"))
        return None
    return disk_cache.DiskCache(folder.absolute(), limit_bytes)


def _default_folder() -> Path | None:
    """Folder by the XDG Base Directory Specification, in which a relative path counts as none."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - which raises nothing where there is none
    caches = given if given.is_absolute() else home / ".cache"
    return caches / "diffusion-recon" if caches.is_absolute() else None
