"""Settings of a service, from environment variables ``RECON_*`` and ``REDIS_URL``; see docs/deployment.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from operators.errors import InputError
from recon.settings import PREFIX, Bytes, variable, whole_number
from recon.spec.job_states import DEVICES, Device


def _devices(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = tuple(name.strip() for name in value.split(","))
    if not set(found) <= set(DEVICES):
        raise InputError(
            f"{value!r} names no devices", field=variable("devices"), remedy=f"say {', '.join(DEVICES)} or cpu,gpu"
        )
    return found


def _given(value: Any) -> Any:
    """Treat empty environment variables as unset."""
    return value or None


Days = Annotated[int, whole_number("days", 30)]
Seconds = Annotated[int, whole_number("seconds", 60)]
Folder = Annotated[Path, AfterValidator(Path.resolve)]
Devices = Annotated[tuple[Device, ...], NoDecode, BeforeValidator(_devices)]


class Settings(BaseSettings):
    """Settings of a service: where jobs live, what is accepted and how long it is kept.

    What is not given comes from the environment, or else is the default for one machine; raises `InputError`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, populate_by_name=True)
    store: Folder = Path("store")
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL")
    max_upload_bytes: Bytes = 8 * 2**30
    min_free_bytes: Bytes = 2**30
    """Free bytes on the disk below which uploads are refused."""
    retention_days: Days = 30
    """Time after which finished jobs expire; 0 is never."""
    upload_days: Days = 7
    """Time after which uploads that no job uses expire; 0 is never."""
    keys: Annotated[Folder | None, BeforeValidator(_given)] = None
    """File of the API keys. Default: none, and every request is allowed."""
    webhook_secret: Annotated[str | None, BeforeValidator(_given)] = Field(None, repr=False)
    idle_s: Seconds = 60
    """Seconds without data after which a client's request is ended."""
    stop_s: Seconds = 0
    """Seconds for which a stopping worker continues its job before it gives it back."""
    devices: Devices = ("cpu",)
    """Devices for which there are workers; jobs for others are refused."""
    webhook_allow: str = ""
    """Private networks, comma-separated, that webhooks may reach."""
