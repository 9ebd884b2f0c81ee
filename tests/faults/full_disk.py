"""The fault scenario that needs a deployment of its own: its disk fills up."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.faults.deployment import Deployment
from tests.faults.faults import Scale
from tests.faults.ledger import Bench, Ledger, Outcome

DISK = 64 * 2**20
KEPT_FREE = 8 * 2**20
CHUNK = 4 * 2**20


def full_disk(folder: Path, scale: Scale) -> Outcome:
    """Uploads fill the disk until they are refused; then it fills to the last byte while jobs wait; then there is room.

    The disk is a tmpfs where mounting is permitted. Elsewhere only the refusal of uploads is tried, by a reserve
    (``RECON_MIN_FREE_BYTES``) of nearly all that is free.
    """
    with _disk(folder) as (place, real):
        reserve = KEPT_FREE if real else shutil.disk_usage(place).free - DISK
        env = {"RECON_MIN_FREE_BYTES": str(reserve)}
        with Deployment(place / "store", env=env, logs=folder / "disk-logs") as deployment:
            bench = Bench(deployment, folder, scale.iterations)
            bench.learn()
            ledger = Ledger(bench, "disk full", allowed=("worker_lost", "storage_full"))
            ledger.outcome.measured["disk"] = f"tmpfs of {DISK // 2**20} MiB" if real else "a reserve of free bytes"
            refused = _fill_by_uploads(deployment.url)
            ledger.outcome.faults += 1
            if refused != 507:
                ledger.outcome.wrong.append(f"uploads were never refused with 507, the last answer was {refused}")
            if real:
                _fill_to_the_last_byte(ledger, place)
            for entry in (deployment.store / "uploads").iterdir():
                if bench.upload not in entry.name:
                    shutil.rmtree(entry)
            ledger.submit(bench.spec(1))
            return ledger.settle(scale.settle_s)


def _fill_by_uploads(url: str) -> int:
    """Upload until the service refuses; its answer."""
    status = 201
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(3 * DISK // CHUNK):
            status = http.post("/v1/uploads", content=bytes(CHUNK)).status_code
            if status != 201:
                break
    return status


def _fill_to_the_last_byte(ledger: Ledger, place: Path) -> None:
    """With jobs waiting and one running, leave the service no byte for some seconds."""
    for kind in range(4):
        ledger.submit(ledger.bench.spec(kind, slow=True))
    filler = place / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(2**16))
        except OSError:
            ledger.outcome.faults += 1  # full
    for kind in range(3):
        ledger.submit(ledger.bench.spec(kind))
    time.sleep(5)
    filler.unlink()


@contextmanager
def _disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A folder on a small tmpfs, and whether it is one."""
    place = folder / "disk"
    place.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK}", "recon-faults", str(place)]
    real = mount is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield place, real
    finally:
        if real:
            subprocess.run([str(unmount), str(place)], check=True)
