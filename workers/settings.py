"""Settings of a deployment, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from operators.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Where jobs live, how to reach Redis, what is accepted and how long it is kept; see docs/deployment.md."""

    store: Path
    redis_url: str
    max_upload_bytes: int
    min_free_bytes: int
    retention_days: int = 30
    """Finished jobs expire after so long; 0 is never."""
    upload_days: int = 7
    """Uploads that no job uses expire after so long; 0 is never."""
    keys: Path | None = None
    """File of the API keys; without one everybody may do everything."""
    webhook_secret: str | None = field(default=None, repr=False)
    idle_s: int = 60
    """A client that sends nothing for so long is cut off."""
    stop_s: int = 0
    """A worker that is told to stop goes on with its job for so long before it gives it back."""
    devices: tuple[str, ...] = ("cpu",)
    """What there are workers for; jobs for others are refused."""
    webhook_allow: str = ""
    """Networks, comma-separated, that webhooks may reach although they are not public."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment; every variable has a default for one machine."""
        keys = os.environ.get("RECON_KEYS")
        return cls(
            store=Path(os.environ.get("RECON_STORE", "store")).resolve(),
            redis_url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            max_upload_bytes=_integer("RECON_MAX_UPLOAD_BYTES", 8 * 2**30, "bytes"),
            min_free_bytes=_integer("RECON_MIN_FREE_BYTES", 2**30, "bytes"),
            retention_days=_integer("RECON_RETENTION_DAYS", 30, "days"),
            upload_days=_integer("RECON_UPLOAD_DAYS", 7, "days"),
            keys=Path(keys).resolve() if keys else None,
            webhook_secret=os.environ.get("RECON_WEBHOOK_SECRET") or None,
            idle_s=_integer("RECON_IDLE_S", 60, "seconds"),
            stop_s=_integer("RECON_STOP_S", 0, "seconds"),
            devices=_devices(os.environ.get("RECON_DEVICES", "cpu")),
            webhook_allow=os.environ.get("RECON_WEBHOOK_ALLOW", ""),
        )


def _devices(text: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(","))
    if not set(found) <= {"cpu", "gpu"}:
        raise InputError(f"{text!r} names no devices", field="RECON_DEVICES", remedy="say cpu, gpu or cpu,gpu")
    return found


def _integer(name: str, default: int, unit: str) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise InputError(f"{text!r} is not a number of {unit}", field=name, remedy="give a whole number")
    return int(text)
