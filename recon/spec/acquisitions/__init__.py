"""Acquisitions, one file per kind of scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.errors import InputError
from recon.spec.acquisitions.base import Acquisition
from recon.spec.registry import ACQUISITIONS, METHODS, union

if TYPE_CHECKING:
    AnyAcquisition = Acquisition
else:
    AnyAcquisition = union(ACQUISITIONS, "kind")

__all__ = ["Acquisition", "AnyAcquisition", "check_method", "methods_of"]


def methods_of(acquisition: Acquisition) -> tuple[str, ...]:
    """Names of the methods that fit an acquisition."""
    more = (name for name, method in METHODS.items() if acquisition.kind in method.FOR)
    return tuple(dict.fromkeys((*acquisition.METHODS, *more)))


def check_method(acquisition: Acquisition, method: str, field: str = "method") -> None:
    """Raise `InputError` if a method, which `field` names, does not fit the kind of acquisition."""
    allowed = methods_of(acquisition)
    if method not in allowed:
        raise InputError(
            f"{method} does not fit {acquisition.kind}", field=field, remedy=f"use one of {', '.join(allowed)}"
        )
