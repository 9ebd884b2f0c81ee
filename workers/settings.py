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
    """Take an empty variable for one that is not set."""
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
    """Uploads are refused when less is free on the disk."""
    retention_days: Days = 30
    """Finished jobs expire after so long; 0 is never."""
    upload_days: Days = 7
    """Uploads that no job uses expire after so long; 0 is never."""
    keys: Annotated[Folder | None, BeforeValidator(_given)] = None
    """File of the API keys; without one everybody may do everything."""
    webhook_secret: Annotated[str | None, BeforeValidator(_given)] = Field(None, repr=False)
    idle_s: Seconds = 60
    """A client that sends nothing for so long is cut off."""
    stop_s: Seconds = 0
    """A worker that is told to stop goes on with its job for so long before it gives it back."""
    devices: Devices = ("cpu",)
    """What there are workers for; jobs for others are refused."""
    webhook_allow: str = ""
    """Networks, comma-separated, that webhooks may reach although they are not public."""
