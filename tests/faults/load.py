"""The service under load: latency of submissions, a long queue, memory, and what it costs beside `recon run`."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import httpx

from operators.errors import ReconError
from recon.client.client import TERMINAL, Client
from tests.faults.faults import Scale
from tests.faults.ledger import Bench, Ledger, Outcome

CONNECTIONS = 32
SUBMIT_P99_MS = 100.0
OVERHEAD_S = 1.0
GROWTH_BYTES = 16 * 2**20
"""What Python's allocator may keep; a leak of 2 kB a request would be more."""
COMPUTED = 40
"""Jobs of a long queue that are computed; the rest is cancelled."""
BUSY_S = 3.0
"""What a job that takes its time takes at least, roughly: so many are put before a long queue, or it gets none."""


def long_queue(bench: Bench, scale: Scale) -> Outcome:
    """Submissions at a fixed rate, whatever the answers take, until the queue is long; the workers compute meanwhile.

    A submission's time counts from the moment it was due, so that a server that stalls cannot hide it.
    """
    ledger = Ledger(bench, "long queue")
    for number in range(round(scale.queued / scale.rate / BUSY_S) * bench.deployment.wanted_workers + 1):
        ledger.submit(bench.spec(number, slow=True, priority="high"))
    specs = [bench.spec(kind) for kind in range(5)]
    # Made before the clock runs: each reads the certificates of the machine, which is no time of the service.
    clients: SimpleQueue[Client] = SimpleQueue()
    for _ in range(CONNECTIONS):
        clients.put(Client(bench.deployment.url))
    began = time.monotonic() + 0.5

    def one(number: int) -> float:
        due = began + number / scale.rate
        time.sleep(max(due - time.monotonic(), 0.0))
        client = clients.get()
        ledger.submit(specs[number % 5], client)
        clients.put(client)
        return 1e3 * (time.monotonic() - due)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        times = sorted(pool.map(one, range(scale.queued)))
    look = time.monotonic()
    ledger.client.jobs("queued", 100)
    listing_ms = 1e3 * (time.monotonic() - look)
    waiting = _waiting(bench.deployment.url)
    p99 = times[min(int(0.99 * len(times)), len(times) - 1)]
    ledger.outcome.measured = {
        "submitted": scale.queued,
        "waiting_then": waiting,
        "rate_per_s": scale.rate,
        "submit_p50_ms": round(statistics.median(times), 1),
        "submit_p99_ms": round(p99, 1),
        "submit_max_ms": round(times[-1], 1),
        "listing_ms": round(listing_ms, 1),
    }
    if ledger.outcome.refused:
        ledger.outcome.wrong.append(f"{ledger.outcome.refused} submissions were refused")
    if waiting < scale.queued / 2:
        ledger.outcome.wrong.append(f"only {waiting} jobs were waiting when all were submitted")
    _shorten(ledger)
    return ledger.settle(scale.settle_s)


def _waiting(url: str) -> int:
    """Jobs in all queues, as an operator sees it."""
    text = httpx.get(f"{url}/metrics").text
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith("recon_queue_length{"))


def _shorten(ledger: Ledger) -> None:
    """Let some of the queue be computed, and cancel the rest, the last first: those are still waiting."""
    for job_id in reversed(list(ledger.names)[COMPUTED:]):
        try:
            ledger.client.cancel(job_id)
        except ReconError as error:
            ledger.outcome.wrong.append(f"job {job_id} cannot be cancelled: {error}")


def flat_memory(bench: Bench, scale: Scale) -> Outcome:
    """Memory of the API after a tenth of the requests, and after all of them."""
    ledger = Ledger(bench, "memory of the API")
    job_id = ledger.submit(bench.spec(0))
    ledger.settle(60)
    spec = bench.spec(0).model_dump(mode="json", exclude_unset=True)
    refused = {**spec, "method": "magic"}
    paths = ["/healthz", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/results/volume.npy", "/v1/jobs/" + "a" * 26]

    def some(count: int) -> None:
        with httpx.Client(base_url=bench.deployment.url, timeout=60) as http:
            for number in range(count // 8):
                if number % 5 == 4:
                    http.post("/v1/jobs", json=refused)
                else:
                    http.get(paths[number % 4])

    def all_of(count: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(some, [count] * 8))
        return bench.deployment.rss_bytes()

    warm = all_of(scale.requests // 10)
    end = all_of(scale.requests)
    ledger.outcome.measured = {
        "requests": scale.requests,
        "rss_before_mb": round(warm / 1e6, 1),
        "rss_after_mb": round(end / 1e6, 1),
        "growth_mb": round((end - warm) / 1e6, 1),
    }
    if end - warm > GROWTH_BYTES:
        ledger.outcome.wrong.append(f"the API grew by {(end - warm) / 1e6:.0f} MB")
    ledger.outcome.seconds = round(time.monotonic() - ledger.began, 1)
    return ledger.outcome


def overhead(bench: Bench, scale: Scale, folder: Path, repeats: int = 3) -> Outcome:
    """Compare upload, submit, wait and fetch with the same job run in-process; both warm, the best of some."""
    import torch

    from recon.pipeline.reconstruct import run
    from recon.spec.job import JobSpec, local_files

    torch.set_num_threads(1)  # as the workers here
    ledger = Ledger(bench, "overhead")
    value = bench.spec(0).model_dump(mode="json", exclude_unset=True)
    value["input"] = {**value["input"], "upload": None, "path": str(bench.file)}
    local = JobSpec.parse(value)
    alone, served = [], []
    for number in range(repeats + 1):
        began = time.monotonic()
        run(local, local_files(local), folder / f"alone-{number}")
        alone.append(time.monotonic() - began)
        began = time.monotonic()
        job_id = ledger.submit(local)
        assert job_id is not None
        while ledger.client.job(job_id)["state"] not in TERMINAL:
            time.sleep(0.02)
        ledger.client.fetch(job_id, folder / f"served-{number}")
        served.append(time.monotonic() - began)
    found = min(served[1:]) - min(alone[1:])
    ledger.outcome.measured = {
        "run_s": round(min(alone[1:]), 3),
        "service_s": round(min(served[1:]), 3),
        "overhead_s": round(found, 3),
        "job": local.name,
        "iterations": scale.iterations,
    }
    if found > OVERHEAD_S:
        ledger.outcome.wrong.append(f"{found:.2f} s of overhead")
    return ledger.settle(60)
