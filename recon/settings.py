"""Settings of this machine, from environment variables ``RECON_*``; see docs/deployment.md.

``RECON_URL`` and ``RECON_DATA`` are defaults of options, which the command line reads itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from operators.errors import InputError

PREFIX = "RECON_"


def whole_number(unit: str, example: int) -> BeforeValidator:
    """Make the check of a variable that holds a whole number: an `InputError` names variable, value and remedy."""

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
    """Name of the environment variable of a setting."""
    return PREFIX + name.upper()


Bytes = Annotated[int, whole_number("bytes", 8 * 2**30)]


class Settings(BaseSettings):
    """Settings of whatever reads, plans or submits jobs on this machine; read anew whenever one is made."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)
    max_input_bytes: Bytes = 8 * 2**30
    """Largest array that a reader accepts."""
    max_job_bytes: Bytes | None = None
    """Memory that a job may take; by default a share of the machine's."""
    plan: Path | None = None
    """Table of costs, written by ``recon plan --calibrate``; by default the one shipped."""
    api_key: str | None = None
    """Key sent to a server; an option would be seen by everybody on the machine."""
