"""Versions of the packages that compute a result."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "diffusion-recon", "torch", "openvino", "monai", "astra-toolbox", "sigpy", "nibabel", "numpy", "scipy", "celery",
    "redis",
)  # fmt: skip


def installed() -> dict[str, str]:
    """Version of each package that is installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
