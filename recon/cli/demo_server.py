"""Demonstration: starts a real server, runs two jobs over HTTP, and shows the results."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operators.errors import BackendUnavailable
from recon.client.client import Client
from recon.samples import SAMPLES
from recon.spec.job import JobSpec
from recon.spec.report import Report

STARTUP_S = 60.0
STOP_S = 60.0


def jobs() -> dict[str, JobSpec]:
    """Make the two jobs: CT of a known volume from few views, and measured multi-coil MRI."""
    ct = {
        "name": "body CT, 60 views",
        "input": {
            "path": str(SAMPLES / "ct_body.nii.gz"),
            "slices": [52, 68],
            "simulate": {"views": 60, "photons_per_ray": 1e5},
        },
        "acquisition": "ct-parallel",
        "method": "red-diff",
        "output": {"baselines": ["fbp", "tv"], "undetermined": True},
    }
    mri = {
        "name": "brain MRI, 8 coils, 12 % of k-space, measured",
        "input": {"path": str(SAMPLES / "mri_brain_8coil.npy"), "format": "numpy"},
        "acquisition": "mri-cartesian",
        "method": "red-diff",
        "output": {"baselines": ["cg-sense", "l1-wavelet"]},
    }
    return {"ct": JobSpec.parse(ct), "mri": JobSpec.parse(mri)}


@contextmanager
def server(store: Path) -> Iterator[str]:
    """Run ``recon serve --embedded`` on a free port; yields its URL once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "recon.cli.main",
        "serve",
        "--embedded",
        "--port",
        str(port),
        "--store",
        str(store),
    ]
    with (store / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))  # noqa: S603 - our own command
        try:
            _wait_until_ready(url, process, store)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], store: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    with Client(url) as client:
        while time.monotonic() < deadline and process.poll() is None:
            if client.ready():
                return
            time.sleep(0.2)
    raise BackendUnavailable("the server did not start", field="server", remedy=f"see {store / 'server.log'}")


def rows(reports: dict[str, Report]) -> list[list[str]]:
    """Make table rows of finished jobs, one per method, baselines included."""
    found = []
    for report in reports.values():
        for method, misfit in report.data_misfit.items():
            truth = report.against_truth
            own = method == report.method["name"]
            found.append(
                [
                    report.name if own else "",
                    method,
                    f"{report.seconds.total:.0f}" if own else "",
                    f"{misfit:.4f}",
                    str(truth[method].psnr) if truth else "no truth",
                ]
            )
    return found
