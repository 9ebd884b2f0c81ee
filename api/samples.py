"""Routes of samples: data that come with the package, as an upload and a specification that is ready to be sent."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from api import problems
from api.links import link
from api.models import Sample, Samples, SampleUpload, Upload
from api.openapi import STRING, headers
from api.service import Service, key_of, owns, service
from api.uploads import check_room
from operators.errors import NotFound
from recon.samples import shipped
from workers import uploads
from workers.keys import Key

router = APIRouter(tags=["uploads"])


@router.get("/v1/samples")
@router.head("/v1/samples", include_in_schema=False)
def list_samples() -> Samples:
    """Measurements and volumes that come with the service, to try it with."""
    return Samples(
        samples=[
            Sample(
                name=name,
                title=sample.title,
                about=sample.about,
                source=sample.source,
                bytes=sample.path.stat().st_size,
            )
            for name, sample in shipped.SHIPPED.items()
        ]
    )


@router.post(
    "/v1/samples/{name}",
    status_code=201,
    response_model=SampleUpload,
    responses={
        200: {"model": SampleUpload, "description": "The upload that was made before."},
        201: {"headers": headers(STRING, "Location")},
        **problems.responses(404, 413, 507),
    },
)
def take(request: Request, response: Response, name: str) -> SampleUpload:
    """Make a sample an upload of one's own; the answer has a specification that can be sent to `/v1/jobs`.

    The same sample again is the same upload, as long as that is there.
    """
    found, key = service(request), key_of(request)
    sample = shipped.SHIPPED.get(name)
    if sample is None:
        raise NotFound(
            f"there is no sample {name[:100]!r}", field="name", remedy=f"choose {' or '.join(shipped.SHIPPED)}"
        )
    before = _made_before(found, key, sample)
    upload = before or _make(found, key, sample)
    response.status_code = 200 if before else 201
    response.headers["Location"] = link(f"/v1/uploads/{upload.id}")
    return SampleUpload(upload=upload, specification=sample.specification(upload.id))


def _made_before(found: Service, key: Key | None, sample: shipped.Sample) -> Upload | None:
    for meta in found.usage.uploads():
        if meta["sha256"] == _sha256(sample.path) and owns(key, meta["owner"]):
            return Upload.model_validate(meta)
    return None


def _make(found: Service, key: Key | None, sample: shipped.Sample) -> Upload:
    size = sample.path.stat().st_size
    check_room(found.settings, size, size)
    with found.usage.one_more_upload(key) as arriving, uploads.receiving(found.store) as (upload_id, path):
        arriving.keep(size, whole=True)
        shutil.copyfile(sample.path, path)
        owner = key.name if key else None
        meta = uploads.publish(found.store, upload_id, path, _sha256(sample.path), owner, name=sample.file)
    return Upload.model_validate(meta)


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
