"""Error classes. The API maps them to problem+json, the command line to exit codes.

::

    ReconError
    +-- InputError            the request or a file is wrong; the user can mend it
    |   +-- GeometryError     the acquisition geometry contradicts the data or itself
    +-- ResourceLimit         larger than this installation accepts
    +-- BackendUnavailable    a GPU, Redis or a package is missing
    +-- StorageFull           the disk, or a key's share of it, takes no more
    +-- NotFound              no such job, upload or result
    +-- Conflict              the job's state forbids the request
    +-- Cancelled             the job was cancelled on request
    +-- Diverged              a solver produced NaN, or a result that fits worse than nothing
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from copy import copy
from typing import Any, Self


class ReconError(Exception):
    """Base class of errors that name the field, what is wrong with it, and the remedy.

    Parameters
    ----------
    message
        What is wrong, with the value.
    field
        Dotted path of the offending field in the job specification, or the file's role.
    remedy
        What the user can do.
    also
        What else is wrong, if it was found at once.
    """

    code = "error"
    status = 500
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        remedy: str | None = None,
        also: Sequence[ReconError] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.field, self.remedy, self.also = message, field, remedy, tuple(also)

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        mend = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.message}{mend}"

    def __copy__(self) -> Self:
        """Copy without the constructor, whose arguments are a subclass's own."""
        found = type(self).__new__(type(self))
        found.args = self.args
        found.__dict__.update(self.__dict__)
        return found

    def at(self, field: str) -> Self:
        """Copy of the error that names the field by which its caller knows it."""
        found = copy(self)
        found.field = field
        return found

    def among(self, what: str) -> Self:
        """Copy of the error that says in which part of the data it is."""
        found = copy(self)
        found.message = f"{what}: {self.message}"
        found.args = (found.message,)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The error as stored in a job's state and sent over HTTP."""
        return {"code": self.code, "message": self.message, "field": self.field, "remedy": self.remedy}


class InputError(ReconError):
    """The request or a file is wrong; the user can mend it."""

    code, status, exit_code = "invalid_input", 422, 2


class GeometryError(InputError):
    """The acquisition geometry contradicts the data or itself."""

    code = "invalid_geometry"


class ResourceLimit(ReconError):
    """The request, file or job is larger than this installation accepts."""

    code, status, exit_code = "too_large", 413, 2


class BackendUnavailable(ReconError):
    """A GPU, Redis or a package is missing."""

    code, status, exit_code = "backend_unavailable", 503, 3


class StorageFull(ReconError):
    """The disk, or a key's share of it, is too full to take more."""

    code, status, exit_code = "storage_full", 507, 3

    @classmethod
    def of(cls, error: Exception) -> StorageFull | None:
        """Convert an operating system error that means a full disk; None for others."""
        if not isinstance(error, OSError):
            return None
        # NumPy says how much it has written, and not why it stopped.
        cut_short = error.errno is None and "requested and" in str(error)
        if not cut_short and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return None
        return cls("the disk is full", field="disk", remedy="delete what is no longer needed, then try again")


class NotFound(ReconError):
    """The job, upload or result does not exist."""

    code, status, exit_code = "not_found", 404, 2


class Conflict(ReconError):
    """The job's state forbids the request."""

    code, status, exit_code = "conflict", 409, 2


class Cancelled(ReconError):
    """The job was cancelled on request."""

    code, status, exit_code = "cancelled", 409, 4


class Diverged(ReconError):
    """A solver produced NaN, or a result that fits worse than nothing."""

    code, exit_code = "diverged", 5
