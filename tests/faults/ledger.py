"""What a deployment accepted, and what came of it: the bookkeeping of the fault scenarios."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from operators.errors import BackendUnavailable, ReconError
from recon.client.client import TERMINAL, Client, ServerError
from recon.client.connection import Connection
from recon.formats import nifti
from recon.spec.job import JobSpec
from tests.faults.deployment import Deployment

KINDS = 5
"""Different jobs: each scenario submits them in turn, and their results are known from an undisturbed run."""
SIZE = 96


@dataclass
class Outcome:
    """Counts of one scenario.

    Parameters
    ----------
    accepted, refused
        Submissions answered by a 202, and by an error that says so.
    finished
        Accepted jobs that reached a final state.
    lost
        Accepted jobs that did not, or that the service forgot.
    duplicated
        Jobs whose results were published more than once.
    corrupted
        Succeeded jobs whose result has another sha256 than that of the undisturbed run.
    faults
        Kills, wipes, copies: how often something was broken.
    """

    name: str
    at: str = ""
    """When it ended."""
    machine: str = ""
    """Where it ran."""
    accepted: int = 0
    refused: int = 0
    finished: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    faults: int = 0
    seconds: float = 0.0
    measured: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """What should not have been."""


class Bench:
    """A deployment with an uploaded volume and known results.

    Parameters
    ----------
    deployment
        It runs.
    iterations
        Of total variation in a job that takes its time; sets how long.
    """

    def __init__(self, deployment: Deployment, folder: Path, iterations: int) -> None:
        self.deployment, self.iterations = deployment, iterations
        self.file = volume(folder)
        self.expected: dict[str, str] = {}
        with Client(deployment.url) as client:
            self.upload = client.upload(self.file)

    def spec(self, kind: int, *, slow: bool = False, **more: Any) -> JobSpec:
        """Job number `kind` of its sort."""
        kind %= KINDS
        method = {"name": "tv", "iterations": self.iterations} if slow else {"name": "fbp"}
        return JobSpec.parse(
            {
                "name": f"{method['name']} {kind}",
                "input": {"upload": self.upload, "format": "nifti", "slices": [kind, kind + 1], "simulate": {}},
                "acquisition": "ct-parallel",
                "method": method,
                "output": {"format": "numpy", "baselines": [], "montage": False},
                **more,
            }
        )  # fmt: skip

    def learn(self) -> Outcome:
        """Run every kind of job once, undisturbed, and keep the sha256 of its result."""
        ledger = Ledger(self, "undisturbed")
        for kind in range(KINDS):
            for slow in (False, True):
                ledger.submit(self.spec(kind, slow=slow))
        ledger.settle(300)
        for job_id, name in ledger.names.items():
            self.expected[name] = ledger.sha256(job_id)
        return ledger.outcome


class Ledger:
    """The jobs of one scenario.

    Parameters
    ----------
    bench
        Where they run.
    name
        Of the scenario.
    allowed
        Codes of errors that its faults explain; a job that failed with another is wrong.
    """

    def __init__(self, bench: Bench, name: str, allowed: Collection[str] = ("worker_lost",)) -> None:
        self.bench, self.outcome, self.allowed = bench, Outcome(name), allowed
        self.client = Client(bench.deployment.url, patience_s=15.0)  # a refusal is part of what is measured
        self.connection = Connection(bench.deployment.url, None, 60.0)
        self.names: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.published: dict[str, int] = {}
        """Inode of the results when the job was first seen to have succeeded."""
        self.began = time.monotonic()

    def submit(self, spec: JobSpec, client: Client | None = None) -> str | None:
        """Submit; None, and counted, when the service said that it did not accept."""
        try:
            job_id = str((client or self.client).submit(spec)["id"])
        except ReconError:
            self.outcome.refused += 1
            return None
        self.names[job_id] = spec.name
        self.outcome.accepted += 1
        return job_id

    def poll(self) -> int:
        """Look at every job that has not ended; how many there are still."""
        waiting = [job_id for job_id in self.names if self.states.get(job_id) not in TERMINAL]
        with ThreadPoolExecutor(4) as pool:
            for job_id, state in zip(waiting, pool.map(self._state, waiting), strict=True):
                self.states[job_id] = state
                if state == "succeeded":
                    self.published[job_id] = self._output(job_id).stat().st_ino
        return sum(self.states.get(job_id) not in TERMINAL for job_id in self.names)

    def running(self, since: str = "") -> bool:
        """Whether a job of the service runs and has shown life since a time (ISO)."""
        try:
            return any(j["updated"] > since for j in self.client.jobs("running", 10))
        except ReconError:
            return False

    def settle(self, seconds: float) -> Outcome:
        """Wait until every accepted job has ended, then count."""
        deadline = time.monotonic() + seconds
        while self.poll() and time.monotonic() < deadline:
            time.sleep(0.5)
        self._count()
        self.outcome.seconds = round(time.monotonic() - self.began, 1)
        return self.outcome

    def sha256(self, job_id: str) -> str:
        """Hash of the volume as it arrives here, whatever the manifest says."""
        digest = hashlib.sha256()
        with self.connection.stream(f"/v1/jobs/{job_id}/results/volume.npy") as answer:
            for chunk in answer.iter_bytes():
                digest.update(chunk)
        return digest.hexdigest()

    def _state(self, job_id: str) -> str:
        try:
            return str(self.client.job(job_id)["state"])
        except ServerError as error:
            return "lost" if error.status == 404 else "unknown"
        except BackendUnavailable:
            return "unknown"  # the API is away: ask again

    def _count(self) -> None:
        out = self.outcome
        for job_id, name in self.names.items():
            state = self.states.get(job_id, "unknown")
            if state not in TERMINAL:
                out.lost += 1
                out.wrong.append(f"job {job_id} is {state}")
                continue
            out.finished += 1
            setattr(out, state, getattr(out, state) + 1)
            if state == "failed":
                code = (self.client.job(job_id)["error"] or {}).get("code")
                if code not in self.allowed:
                    out.wrong.append(f"job {job_id} failed with {code}")
            if state != "succeeded":
                continue
            known = self.bench.expected.get(name)
            out.corrupted += known is not None and self.sha256(job_id) != known
            again = self._output(job_id).stat().st_ino != self.published[job_id]
            out.duplicated += again or self._successes(job_id) > 1

    def _output(self, job_id: str) -> Path:
        return self.bench.deployment.store / "jobs" / job_id / "output"

    def _successes(self, job_id: str) -> int:
        """How often the job's history says that it succeeded."""
        history = self._output(job_id).with_name("events.jsonl")
        if not history.is_file():
            return 1
        events = [json.loads(line) for line in history.read_text().splitlines()]
        return sum(e["event"] == "state" and e["data"].get("state") == "succeeded" for e in events)


def volume(folder: Path, name: str = "faults", repeats: int = 1) -> Path:
    """A small CT volume in HU: a cylinder with inserts that differ from slice to slice, the whole several times."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    made = np.full((KINDS, SIZE, SIZE), -1000.0, np.float32)
    for index, image in enumerate(made):
        image[x**2 + y**2 < 0.7] = 40.0
        image[(x - 0.1 * index) ** 2 + (y + 0.3) ** 2 < 0.02] = 800.0
        image[(x + 0.4) ** 2 + (y - 0.1 * index) ** 2 < 0.03] = -700.0
    path = folder / f"{name}.nii.gz"
    nifti.write(path, np.tile(made, (repeats, 1, 1)), np.diag([2.0, 2.0, 2.0, 1.0]), "fault scenarios")
    return path
