"""Old names in a specification: accepted with a warning for one minor release, then refused with the new name."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import version


class Renamed(str):
    """New name of something that a published release renamed, as a value in a table of new names by old ones.

    Parameters
    ----------
    new
        The new name.
    since
        Minor release that renamed it, such as ``0.3``. Until the next one the old name is accepted with a warning.
        A plain string in the table instead: the old name is refused.
    """

    since: str

    def __new__(cls, new: str, *, since: str) -> Renamed:
        """Make the string and remember the release."""
        found = super().__new__(cls, new)
        found.since = since
        return found


class OldName(FutureWarning):
    """Warning about a specification in an old name, which the next minor release refuses."""


@cache
def release() -> str:
    """Version of the installed package."""
    return version("diffusion-recon")


def still_accepted(old: str, new: str, notes: list[str] | None) -> bool:
    """Whether an old name is still accepted; if so, say in a warning what the new one is.

    Parameters
    ----------
    old, new
        The names; `new` as it stands in the table.
    notes
        List that receives the sentence in place of a warning, once.
    """
    if not isinstance(new, Renamed) or _minor(release()) > _minor(new.since):
        return False
    said = f"{old} is now called {new}; write the new name, the next minor release refuses the old one"
    if notes is None:
        warnings.warn(said, OldName, stacklevel=2)
    elif said not in notes:
        notes.append(said)
    return True


def _minor(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)
