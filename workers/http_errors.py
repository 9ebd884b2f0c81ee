"""HTTP errors of a service; those of reconstruction are in `operators.errors`."""

from __future__ import annotations

from operators.errors import ReconError


class Refusal(ReconError):
    """Base class of refused requests; `headers` go with the response."""

    headers: dict[str, str] = {}  # noqa: RUF012 - read only
    exit_code = 2


class Unauthorized(Refusal):
    """The API key is missing or unknown."""

    code, status = "unauthorized", 401
    headers = {"WWW-Authenticate": 'Bearer realm="recon"'}  # noqa: RUF012


class CrossSite(Refusal):
    """A page of another web site tried to change something through the user's browser."""

    code, status = "cross_site", 403


class ForeignHost(Refusal):
    """The request's host is not a name of this service, see RECON_HOSTS."""

    code, status = "foreign_host", 421


class Gone(Refusal):
    """The resource was deleted."""

    code, status = "gone", 410


class InProgress(Refusal):
    """The same request, or another piece of the upload, is being processed."""

    code, status = "in_progress", 409
    headers = {"Retry-After": "1"}  # noqa: RUF012


class UnsupportedMediaType(Refusal):
    """The body is a form, text or compressed; the API takes the file itself."""

    code, status = "unsupported_media_type", 415
    headers = {"Accept-Encoding": "identity"}  # noqa: RUF012


class TooManyJobs(Refusal):
    """The key has reached its limit of unfinished jobs."""

    code, status = "too_many_jobs", 429
    headers = {"Retry-After": "30"}  # noqa: RUF012


class Stalled(Refusal):
    """The request's data stopped arriving, see RECON_IDLE_S."""

    code, status = "stalled", 408
    headers = {"Connection": "close"}  # noqa: RUF012


class Busy(Refusal):
    """The service has reached its limit of open streams; try again."""

    code, status = "busy", 503
    headers = {"Retry-After": "5"}  # noqa: RUF012
