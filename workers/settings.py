"""Settings of a service, from environment variables; see docs/reference/environment.md."""

from __future__ import annotations

import re
from ipaddress import ip_network
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


def _listed(value: Any) -> Any:
    """Split a list that is written with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_proxy(value: str) -> str:
    try:
        if value != "*":
            ip_network(value)
    except ValueError as error:
        raise InputError(
            f"{value!r} is neither an address nor a network",
            field=variable("proxies"),
            remedy="give those of the proxies, such as 10.1.0.2 or 10.1.0.0/16",
        ) from error
    return value


def _check_host(value: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        raise InputError(
            f"{value!r} is no name of a host",
            field=variable("hosts"),
            remedy="give names without scheme and port, such as recon.example.org or *.example.org",
        )
    return value.lower()


def _given(value: Any) -> Any:
    """Treat empty environment variables as unset."""
    return value or None


Days = Annotated[int, whole_number("days", 30)]
Seconds = Annotated[int, whole_number("seconds", 60)]
Folder = Annotated[Path, AfterValidator(Path.resolve)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_check_host)], ...], NoDecode, BeforeValidator(_listed)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_check_proxy)], ...], NoDecode, BeforeValidator(_listed)]
Devices = Annotated[tuple[Device, ...], NoDecode, BeforeValidator(_devices)]


class Settings(BaseSettings):
    """Settings of a service: where jobs live, what is accepted and how long it is kept.

    What is not given comes from the environment, or else is the default for one machine; raises `InputError`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )
    store: Folder = Path("store")
    """Folder of jobs and uploads: the same file system for API and workers, with a working ``flock``."""
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL")
    """URL of Redis, which holds the queues."""
    max_upload_bytes: Bytes = 8 * 2**30
    """Size limit of an upload in bytes."""
    min_free_bytes: Bytes = 2**30
    """Free bytes on the disk below which uploads are refused (507)."""
    retention_days: Days = 30
    """Days after which finished jobs are deleted; 0 is never."""
    upload_days: Days = 7
    """Days after which uploads that no job uses are deleted; 0 is never."""
    keys: Annotated[Folder | None, BeforeValidator(_given)] = None
    """File of the API keys, see ``recon key``. Default: none, and every request is allowed."""
    webhook_secret: Annotated[str | None, BeforeValidator(_given)] = Field(None, repr=False)
    """Secret that signs webhooks. Default: none, and jobs with `webhook_url` are refused."""
    idle_s: Seconds = 60
    """Seconds without data after which a client's request is ended (408)."""
    stop_s: Seconds = 0
    """Seconds for which a stopping worker continues its job before it gives it back. Finished chunks are kept; a job of
    up to 32 slices has one."""
    devices: Devices = ("cpu",)
    """Devices for which there are workers, ``cpu``, ``gpu`` or ``cpu,gpu``; jobs for others are refused."""
    webhook_allow: str = ""
    """Private networks that webhooks may reach, separated by commas, as ``10.1.0.0/16, ::1/128``. Default: none."""
    picture_bytes: Bytes = 2 * 2**30
    """Memory in bytes that an API process may use for decoded volumes, from which it draws slices. A volume that takes
    more than a quarter of it as float32 has no pictures; by default that is more than 512 x 512 x 512 voxels."""
    hosts: Hosts = ()
    """Names by which the API is reached besides ``localhost`` and addresses, as ``recon.example.org,
    *.clinic.example``; ``*`` is any. Requests for other hosts are refused (421)."""
    proxies: Networks = ("127.0.0.1", "::1")
    """Addresses and networks of the reverse proxies whose ``X-Forwarded-*`` headers are believed."""
