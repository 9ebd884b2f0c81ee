"""Settings of this machine, from environment variables ``RECON_*``; see docs/reference/environment.md.

``RECON_URL`` is the default of an option, which the command line reads itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from operators.errors import InputError

PREFIX = "RECON_"


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
    api_key: str | None = None
    """API key that the command line sends to a server. There is no option for it, since every user of a machine can
    see the options of running programs."""
