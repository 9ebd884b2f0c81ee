"""Viewer of a folder of results, without a service: the same page and pictures, for this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse

from api import allowed_methods, page_files, problems, slices
from api.links import link
from api.media_types import media_type
from api.models import ViewedFolder
from api.volumes import ENDINGS, VolumeCache
from api.web_security import RESULT_POLICY, SameSite, SecurityHeaders
from operators.errors import InputError, NotFound
from recon.spec.report import Report
from workers.settings import Settings

ID = "folder"
"""Id under which the folder goes where a service has jobs."""
ASKED_AGAIN = {"Cache-Control": "no-cache"}
"""The address of a picture says neither which folder it comes from nor when: another patient's had the same one."""
router = APIRouter()


def create_app(folder: Path) -> FastAPI:
    """Make the application that shows a folder.

    Raises
    ------
    InputError
        If there is no such folder, or no volume in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}",
            field="folder",
            remedy="give a folder of results",
        )
    if not any(path.name.endswith(ENDINGS) for path in folder.iterdir()):
        raise InputError(
            f"{folder} has no NIfTI volume ({', '.join(ENDINGS)})",
            field="folder",
            remedy="give a folder that `recon run` or `recon fetch` has written",
        )
    settings = Settings()
    app = FastAPI(title="Diffusion Recon", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.folder = folder
    app.state.pictures = slices.Pictures(_result_folder, VolumeCache(settings.picture_bytes), ASKED_AGAIN)
    problems.install(app)
    page_files.install(app, "view.html")
    app.include_router(slices.router)
    app.include_router(router)
    allowed_methods.install(app, [slices.router, router])
    app.add_middleware(SameSite, settings=settings)
    app.add_middleware(SecurityHeaders)
    return app


@router.get("/v1/view")
def viewed(request: Request) -> ViewedFolder:
    """Contents of the folder, as a job and its results."""
    folder: Path = request.app.state.folder
    method = name = ""
    try:
        report = Report.read(folder / "report.json")
        method, name = str(report.method["name"]), report.name
    except InputError:
        pass  # volumes alone are shown as well
    files: list[dict[str, Any]] = [
        {"name": path.name, "bytes": path.stat().st_size, "href": link(f"/v1/jobs/{ID}/results/{path.name}")}
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    return ViewedFolder.model_validate(
        {"job": {"id": ID, "name": name or folder.resolve().name, "method": method}, "files": files}
    )


@router.get("/v1/jobs/{job_id}/results/{name}")
def result(request: Request, job_id: str, name: str) -> Response:
    """One of its files."""
    file = next((path for path in _result_folder(request, job_id).iterdir() if path.name == name), None)
    if file is None or not file.is_file():
        raise NotFound(f"the folder has no file {name[:200]!r}", field="name")
    headers = {"Content-Security-Policy": RESULT_POLICY, **ASKED_AGAIN}
    return FileResponse(file, media_type=media_type(name), filename=name, headers=headers)


def _result_folder(request: Request, job_id: str) -> Path:
    folder: Path = request.app.state.folder
    if job_id != ID:
        raise NotFound(f"there is no job {job_id[:100]!r}, only one folder", field="id")
    return folder
