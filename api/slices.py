"""Routes of pictures: slices of a result as PNG, values at a voxel, and a reduced volume to begin with.

They are for pages, which may have no graphics, and need not fetch a volume to show a slice of it.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from api import problems
from api.models import VolumeView, VoxelValues
from api.openapi import BINARY, STRING, header_parameter, headers
from api.representation import matches
from api.service import key_of, service
from api.volumes import Decoded, Head, VolumeCache, head
from operators.errors import Conflict, InputError, NotFound
from recon.quality import png
from recon.quality.png import Colours
from recon.quality.views import PlaneName
from recon.spec.report import Report
from workers.http_errors import Busy
from workers.store import Record

router = APIRouter(tags=["pictures"])
DRAWN = "1"
"""Version of the drawing: pictures are kept by browsers for good, and one that is drawn otherwise has another tag."""
MOST_VOXELS = 2**26
"""Most voxels of a volume that is sent as a whole."""
THREADS = 4
"""Pictures that are drawn at a time, in threads of their own: a volume that takes its time to be decoded holds up
other pictures, and no key or list of jobs."""
MOST_WAITING = 64
"""Pictures that may wait for one of these threads: more are refused, and asked for again by who still wants them."""
MOST_SENDING = 8
"""Whole volumes that are sent at a time."""
SLAB_BYTES = 2**22
"""Bytes of a volume that are made at a time, as far as slices are no larger."""
NIFTI_HEADER_BYTES, LONGEST_SIDE = 352, 32767
Bound = Annotated[
    float | None, Query(allow_inf_nan=False, description="Value that is black or white, in the volume's unit.")
]
TAGGED = {"parameters": [header_parameter("If-None-Match", "The `ETag` that the client has; 304 if it still holds.")]}
ResultFolder = Callable[[Request, str], Path]
"""Function that gives the folder of a job's results, or raises."""
P = ParamSpec("P")


@dataclass
class Pictures:
    """Services that the routes of pictures need of their application, as ``app.state.pictures``.

    Parameters
    ----------
    result_folder
        Where the volumes of a job are.
    volumes
        Those that are decoded.
    caching
        Headers that say how long browsers may keep an answer.
    """

    result_folder: ResultFolder
    volumes: VolumeCache
    caching: Mapping[str, str]
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS))
    asked: int = 0
    """Pictures that are drawn or wait for a thread."""
    sending: int = 0
    """Whole volumes that are being sent."""


def in_own_threads(route: Callable[P, Response]) -> Callable[P, Awaitable[Response]]:
    """Run a route in the threads of pictures, not in those of all routes."""

    @functools.wraps(route)
    async def run(*given: P.args, **named: P.kwargs) -> Response:
        request = named["request"]
        assert isinstance(request, Request)
        pictures = _pictures(request)
        if pictures.asked >= THREADS + MOST_WAITING:
            raise Busy(f"{MOST_WAITING} pictures are waiting to be drawn", field="name", remedy="try again in a moment")
        pictures.asked += 1
        try:
            return await to_thread.run_sync(functools.partial(route, *given, **named), limiter=pictures.threads)
        finally:
            pictures.asked -= 1

    return run


def result_folder(request: Request, job_id: str) -> Path:
    """Folder of a job's results in a service; raises `NotFound`, `Gone` or `Conflict`."""
    found = service(request)
    record = found.job(key_of(request), job_id)
    require_results(record)
    return found.store.output(job_id)


def require_results(record: Record) -> None:
    """Raise `Conflict` if a job has no results, with the reason."""
    if record.state != "succeeded":
        reason = record.error["message"] if record.error else ("" if record.terminal else "wait for it")
        raise Conflict(f"job {record.id} is {record.state}: it has no results", field="state", remedy=reason or None)


@router.get(
    "/v1/jobs/{job_id}/slices/{name}",
    response_model=VolumeView,
    responses={200: {"headers": headers(STRING, "ETag")}, **problems.responses(404, 409, 410, 413, 503)},
    openapi_extra=TAGGED,
)
@router.head("/v1/jobs/{job_id}/slices/{name}", include_in_schema=False)
@in_own_threads
def volume_view(request: Request, job_id: str, name: str) -> Response:
    """Shape, affine, unit, range of values and planes of a volume: all that a page needs to show it."""
    path = _file(request, job_id, name)
    unit = "rad" if "-phase." in path.name else _unit(path.parent)
    tag = _tag(path, "about", unit)
    if matches(request, tag):
        return _unchanged(request, tag)
    view = _pictures(request).volumes.use(path, lambda found: _described(found, path.name, unit))
    return Response(view.model_dump_json(), headers=_headers(request, tag), media_type="application/json")


@router.get(
    "/v1/jobs/{job_id}/slices/{name}/{plane}/{index}.png",
    response_class=Response,
    responses={
        200: {"content": {"image/png": BINARY}, "headers": headers(STRING, "ETag")},
        304: {"description": "As the client has it (If-None-Match)."},
        **problems.responses(404, 409, 410, 413, 503),
    },
    openapi_extra=TAGGED,
)
@router.head("/v1/jobs/{job_id}/slices/{name}/{plane}/{index}.png", include_in_schema=False)
@in_own_threads
def picture(
    request: Request,
    job_id: str,
    name: str,
    plane: PlaneName,
    index: int,
    low: Bound = None,
    high: Bound = None,
    colours: Annotated[Colours, Query(description="Colours: `gray`, or `inferno` for maps.")] = "gray",
    minus: Annotated[
        str | None, Query(max_length=200, description="Volume of the same job to subtract: a difference.")
    ] = None,
) -> Response:
    """Slice of a volume as a picture, one pixel per voxel, as radiology shows it: the patient's right on the left.

    `index` counts from 0 along the array's axis; values up to `low` are black, from `high` on white.
    """
    path = _file(request, job_id, name)
    other = None if minus is None else _file(request, job_id, minus)
    tag = _tag(path, plane, index, low, high, colours, None if other is None else _tag(other))
    if matches(request, tag):
        return _unchanged(request, tag)
    if other is not None and (low is None or high is None):
        raise InputError("a difference has no window of its own", field="low", remedy="give low and high")
    volumes = _pictures(request).volumes
    shown, lies, (black, white) = volumes.use(
        path, lambda found: (_slice(found, plane, index), found.head, _window(found, low, high))
    )
    if other is not None:
        with np.errstate(invalid="ignore"):  # of two values that are infinite
            shown = shown - volumes.use(other, lambda found: _slice(_alike(found, lies, minus), plane, index))
    body = png.encode(png.windowed(shown, black, white), colours)
    return Response(body, headers=_headers(request, tag), media_type="image/png")


@router.get(
    "/v1/jobs/{job_id}/slices/{name}/volume.nii",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": BINARY}, "headers": headers(STRING, "ETag")},
        304: {"description": "As the client has it (If-None-Match)."},
        **problems.responses(404, 409, 410, 413, 503),
    },
    openapi_extra=TAGGED,
)
@router.head("/v1/jobs/{job_id}/slices/{name}/volume.nii", include_in_schema=False)
@in_own_threads
def volume(
    request: Request,
    job_id: str,
    name: str,
    voxels: Annotated[int, Query(ge=1, le=MOST_VOXELS, description="Most voxels; more are averaged in blocks.")],
) -> Response:
    """Volume as NIfTI, float32 and not compressed; a reduced one in place of one that has more voxels."""
    path = _file(request, job_id, name)
    tag = _tag(path, "volume", voxels)
    if matches(request, tag):
        return _unchanged(request, tag)
    pictures = _pictures(request)
    whole = pictures.volumes.check(path)
    factor = _factor(whole.shape, voxels)
    shape = _reduced(whole.shape, factor)
    size = NIFTI_HEADER_BYTES + 4 * math.prod(shape)
    headers = {**_headers(request, tag), "Content-Length": str(size)}
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/octet-stream")
    if pictures.sending >= MOST_SENDING:
        raise Busy(f"{MOST_SENDING} volumes are being sent", field="name", remedy="try again in a moment")
    first, *others = [
        functools.partial(_slab, pictures.volumes, path, _tag(path), factor, *slices) for slices in _slabs(shape)
    ]
    begin = _nifti_header(shape, _coarser(whole.affine, factor)) + first()  # what is wrong is said before the answer
    return StreamingResponse(_sent(pictures, begin, others), headers=headers, media_type="application/octet-stream")


@router.get(
    "/v1/jobs/{job_id}/voxels/{col}/{row}/{slice}",
    response_model=VoxelValues,
    responses=problems.responses(404, 409, 410, 413, 503),
)
@router.head("/v1/jobs/{job_id}/voxels/{col}/{row}/{slice}", include_in_schema=False)
@in_own_threads
def voxel(
    request: Request,
    job_id: str,
    col: int,
    row: int,
    slice: int,
    file: Annotated[list[str], Query(max_length=16, description="Names of the volumes.")],
) -> Response:
    """Values of volumes at a voxel, and its place in millimetres."""
    at = (slice, row, col)
    values: dict[str, float | None] = {}
    place = np.zeros(3)

    def taken(found: Decoded, name: str) -> tuple[float, NDArray[np.float64]]:
        for what, index, count in zip(("slice", "row", "col"), at, found.head.shape, strict=True):
            if not 0 <= index < count:
                raise InputError(
                    f"{what} {index} is not in {name}, which has {count}",
                    field=what,
                    remedy=f"give 0 to {count - 1}",
                )
        return float(found.values[at]), found.head.affine[:3] @ [col, row, slice, 1.0]

    for name in file:
        path = _file(request, job_id, name)
        value, place = _pictures(request).volumes.use(path, functools.partial(taken, name=name))
        values[name] = value if math.isfinite(value) else None
    mm = (float(place[0]), float(place[1]), float(place[2]))
    body = VoxelValues(voxel=(col, row, slice), mm=mm, values=values).model_dump_json()
    return Response(body, headers=dict(_pictures(request).caching), media_type="application/json")


def _file(request: Request, job_id: str, name: str) -> Path:
    folder = _pictures(request).result_folder(request, job_id)
    # Names come from the folder's own listing, never from the URL.
    found = next((path for path in folder.iterdir() if path.name == name), None)
    if found is None:
        raise NotFound(f"the job has no result {name[:200]!r}", field="name", remedy="see the list of results")
    head(found)
    return found


def _pictures(request: Request) -> Pictures:
    found: Pictures = request.app.state.pictures
    return found


def _tag(path: Path, *asked: Any) -> str:
    status = path.stat()
    text = repr((DRAWN, str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, *asked))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _headers(request: Request, tag: str) -> dict[str, str]:
    return {**_pictures(request).caching, "ETag": tag}


def _unchanged(request: Request, tag: str) -> Response:
    return Response(status_code=304, headers=_headers(request, tag))


def _described(found: Decoded, name: str, unit: str) -> VolumeView:
    low, high = found.window
    return VolumeView.model_validate(
        {
            "name": name,
            "shape": found.head.shape,
            "affine": found.head.affine.tolist(),
            "in_patient": found.head.in_patient,
            "unit": unit,
            "low": low,
            "high": high,
            "percentiles": found.percentiles,
            "planes": {
                plane: {
                    "count": found.head.shape[view.across],
                    "width": found.head.shape[view.right],
                    "height": found.head.shape[view.down],
                    "pixel_mm": (view.right_mm, view.down_mm),
                    # Axes of a voxel (col, row, slice), which are those of the array from behind.
                    "across": 2 - view.across,
                    "right": 2 - view.right,
                    "down": 2 - view.down,
                    "flip_right": view.flip_right,
                    "flip_down": view.flip_down,
                    "labels": view.labels,
                }
                for plane, view in found.head.views.items()
            },
        }
    )


def _unit(folder: Path) -> str:
    """Unit of the values, as the report beside them says; empty if there is none."""
    try:
        return Report.read(folder / "report.json").unit
    except InputError:
        return ""


def _slice(found: Decoded, plane: PlaneName, index: int) -> NDArray[np.float32]:
    view = found.head.views[plane]
    count = found.head.shape[view.across]
    if not 0 <= index < count:
        raise InputError(
            f"there is no {plane} slice {index}, only {count}", field="index", remedy=f"give 0 to {count - 1}"
        )
    shown: NDArray[np.float32] = view.picture(found.values, index)
    return shown


def _alike(other: Decoded, found: Head, name: str | None) -> Decoded:
    if other.head.shape != found.shape or not np.allclose(other.head.affine, found.affine):
        raise InputError(
            f"{name} lies otherwise: there is no difference", field="minus", remedy="give a baseline of the same job"
        )
    return other


def _window(found: Decoded, low: float | None, high: float | None) -> tuple[float, float]:
    """Window that is asked for, completed from the volume's own."""
    low, high = (found.window[0] if low is None else low), (found.window[1] if high is None else high)
    if not low < high:
        raise InputError(f"low is {low:g}, high is {high:g}", field="high", remedy="give a high above low")
    return low, high


def _factor(shape: tuple[int, int, int], most: int) -> int:
    """Least side of cubes of voxels of which there are no more than `most`, nor more in a row than NIfTI-1 holds."""
    factor = 1
    while math.prod(max(1, n // factor) for n in shape) > most or max(shape) // factor > LONGEST_SIDE:
        factor += 1
    return factor


def _reduced(shape: tuple[int, int, int], factor: int) -> tuple[int, int, int]:
    """Cubes of `factor` voxels a side along each axis; those at the end, which are not whole, are left out."""
    slices, rows, cols = (max(1, n // factor) for n in shape)
    return slices, rows, cols


def _block_means(values: NDArray[np.float32], factor: int, first: int, last: int) -> NDArray[np.float32]:
    """Slices ``[first, last)`` of the means of cubes of `factor` voxels a side."""
    if factor == 1:
        return values[first:last]
    _, rows, cols = _reduced(values.shape, factor)
    steps = [min(factor, n) for n in values.shape]
    cut = values[first * steps[0] : last * steps[0], : rows * steps[1], : cols * steps[2]]
    blocks = cut.reshape(last - first, steps[0], rows, steps[1], cols, steps[2])
    found: NDArray[np.float32] = blocks.mean((1, 3, 5), dtype=np.float32)
    return found


def _coarser(affine: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Affine of the means: a block's middle is where its voxels' middles have their mean."""
    found = affine.copy()
    found[:3, :3] *= factor
    found[:3, 3] += affine[:3, :3] @ np.full(3, (factor - 1) / 2)
    return found


async def _sent(pictures: Pictures, begin: bytes, slabs: Iterable[Callable[[], bytes]]) -> AsyncIterator[bytes]:
    """Parts of an answer, each made when the one before it is sent: a client that reads slowly holds no volume."""
    pictures.sending += 1
    try:
        yield begin
        for slab in slabs:
            yield await to_thread.run_sync(slab, limiter=pictures.threads)
    finally:
        pictures.sending -= 1


def _slabs(shape: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    slices, rows, cols = shape
    step = max(1, SLAB_BYTES // (4 * rows * cols))
    return ((first, min(first + step, slices)) for first in range(0, slices, step))


def _slab(volumes: VolumeCache, path: Path, tag: str, factor: int, first: int, last: int) -> bytes:
    if _tag(path) != tag:
        raise Conflict(f"{path.name} was written anew while it was sent", field="name", remedy="get it again")
    return volumes.use(path, lambda found: _block_means(found.values, factor, first, last).astype("<f4").tobytes())


def _nifti_header(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> bytes:
    """Header of NIfTI-1 of ``(slices, rows, cols)`` with codes 1, whatever frame it is in: viewers place it alike."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_shape(shape[::-1])
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header["vox_offset"], header["magic"] = NIFTI_HEADER_BYTES, b"n+1"
    start: bytes = header.binaryblock
    return start.ljust(NIFTI_HEADER_BYTES, b"\0")  # there are no extensions
