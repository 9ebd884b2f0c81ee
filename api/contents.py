"""Contents of an upload: what it holds, what is missing, and a specification to start from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from api import problems
from api.models import UploadContents
from api.service import key_of, service
from recon.formats import sandbox
from recon.spec.files import LONGEST_NAME
from recon.spec.job import Input
from recon.spec.validation import invalid

router = APIRouter(tags=["uploads"])


@router.get("/v1/uploads/{upload_id}/contents", responses=problems.responses(404, 409, 410, 413, 503))
@router.head("/v1/uploads/{upload_id}/contents", include_in_schema=False)
def contents(
    request: Request,
    upload_id: str,
    format: Annotated[
        str | None, Query(max_length=64, description="Format, as `input.format`; default: detected.")
    ] = None,
    file: Annotated[
        str | None, Query(max_length=LONGEST_NAME, description="File in a folder, as `input.file`.")
    ] = None,
    dataset: Annotated[
        str | None, Query(max_length=200, description="Dataset or variable, as `input.dataset`.")
    ] = None,
    scan: Annotated[str | None, Query(max_length=200, description="Scan in the file, as `input.scan`.")] = None,
) -> UploadContents:
    """Format, data sets, shape and geometry of an upload, what is missing, and a specification to start from.

    What could not be told is asked for in `missing`, with the choices in its remedy; `format`, `file`, `dataset` and
    `scan` choose.
    """
    found, key = service(request), key_of(request)
    found.upload(key, upload_id)
    chosen = {"format": format, "file": file, "dataset": dataset, "scan": scan}
    try:
        given = Input.model_validate({"upload": upload_id, **{k: v for k, v in chosen.items() if v is not None}})
    except ValidationError as error:
        raise invalid(error) from error
    inspected = sandbox.shared.inspect(found.store.upload(upload_id), given)
    return UploadContents.model_validate({"id": upload_id, **inspected.model_dump()})
