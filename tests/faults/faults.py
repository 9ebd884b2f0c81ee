"""Fault scenarios: what a deployment accepted must end once, whole, whatever dies meanwhile."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from recon.client.client import TERMINAL
from tests.faults.deployment import STARTUP_S, Target, kill, tree
from tests.faults.ledger import Bench, Ledger, Outcome

TARGETS: tuple[Target, ...] = ("child", "tree", "main")


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    jobs: int = 50
    kills: int = 20
    submitters: int = 200
    queued: int = 1000
    rate: int = 50
    """Submissions a second."""
    requests: int = 10_000
    iterations: int = 150
    """Iterations of a job that takes its time."""
    settle_s: float = 400.0
    seed: int = 0


def killed_workers(bench: Bench, scale: Scale) -> Outcome:
    """A worker, or part of one, is killed (-9) at a random moment while it computes, again and again."""
    ledger, chance = Ledger(bench, "workers killed"), random.Random(scale.seed)
    for kind in range(scale.jobs):
        ledger.submit(bench.spec(kind, slow=True))
    last = ""
    for number in range(scale.kills):
        if not _until(partial(ledger.running, last), 120):
            ledger.outcome.wrong.append(f"after {number} kills no job ran for 120 s")
            break
        time.sleep(chance.uniform(0, 1.5))
        ledger.outcome.faults += bench.deployment.kill_worker(TARGETS[number % 3], chance)
        last = datetime.now(UTC).isoformat()
        if not ledger.poll():
            break
    if not ledger.outcome.faults:
        ledger.outcome.wrong.append("no worker was killed")
    return ledger.settle(scale.settle_s)


def killed_redis(bench: Bench, scale: Scale) -> Outcome:
    """Redis is killed (-9) while jobs run and wait, is away for two seconds, and comes back on its file."""
    ledger = _busy(bench, "Redis killed", 10)
    for _ in range(2):
        assert bench.deployment.redis is not None
        bench.deployment.redis.kill()
        bench.deployment.redis.wait()
        ledger.outcome.faults += 1
        for kind in range(3):  # refused, or accepted and then computed
            ledger.submit(bench.spec(kind))
        time.sleep(2)
        bench.deployment.start_redis()
        ledger.submit(bench.spec(0))
    return ledger.settle(scale.settle_s)


def wiped_redis(bench: Bench, scale: Scale) -> Outcome:
    """Everything in Redis is deleted while jobs run and wait."""
    ledger = _busy(bench, "Redis wiped", 10)
    for _ in range(3):
        with bench.deployment.broker() as redis:
            redis.flushall()
        ledger.outcome.faults += 1
        ledger.submit(bench.spec(0))
        time.sleep(1)
    return ledger.settle(scale.settle_s)


def killed_api(bench: Bench, scale: Scale) -> Outcome:
    """The API is killed (-9) in the middle of an upload, while jobs run and wait."""
    ledger = _busy(bench, "API killed in an upload", 5)
    before = _uploads(bench)
    content = bench.file.read_bytes()
    connection = _connect(bench)
    with connection:
        head = f"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[: len(content) // 2])
        time.sleep(0.3)
        assert bench.deployment.api is not None
        bench.deployment.api.kill()
        bench.deployment.api.wait()
        ledger.outcome.faults += 1
    bench.deployment.start_api()
    if _uploads(bench) != before:
        ledger.outcome.wrong.append("half an upload became visible")
    again = ledger.client.upload(bench.file)
    spec = bench.spec(0)
    ledger.submit(spec.model_copy(update={"input": spec.input.model_copy(update={"upload": again})}))
    return ledger.settle(scale.settle_s)


def duplicate_deliveries(bench: Bench, scale: Scale) -> Outcome:
    """Every message is delivered again, those of running jobs too, as a visibility timeout does."""
    ledger = _busy(bench, "duplicate deliveries", 8)
    for _ in range(3):
        with bench.deployment.broker() as redis:
            for key in cast(list[bytes], redis.keys("recon:*")):
                if redis.type(key) == b"list":
                    for message in cast(list[bytes], redis.lrange(key, 0, -1)):
                        redis.lpush(key, message)
                        ledger.outcome.faults += 1
                elif key == b"recon:unacked":
                    for value in cast(dict[bytes, bytes], redis.hgetall(key)).values():
                        message, _, queue = json.loads(value)
                        redis.lpush(f"recon:{queue}", json.dumps(message))
                        ledger.outcome.faults += 1
        time.sleep(1)
    return ledger.settle(scale.settle_s)


def poison(bench: Bench, scale: Scale) -> Outcome:
    """A job whose worker dies each time it computes it: given up after three attempts, and the next job runs."""
    ledger = Ledger(bench, "poison job")
    endless = {"name": "tv", "iterations": 5000, "cg_iterations": 50}
    job_id = ledger.submit(bench.spec(0, method=endless))
    assert job_id is not None
    deadline = time.monotonic() + scale.settle_s
    attempts = set()
    while time.monotonic() < deadline:
        job = ledger.client.job(job_id)
        if job["state"] in TERMINAL:
            break
        if job["state"] == "running" and job["attempt"] not in attempts:
            attempts.add(job["attempt"])
            for worker in bench.deployment.workers:
                for pid in tree(worker.pid)[1:]:
                    kill(pid)
            ledger.outcome.faults += 1
        time.sleep(0.2)
    code = (job["error"] or {}).get("code")
    ledger.outcome.measured = {"attempts": job["attempt"], "code": code}
    if code != "worker_lost" or job["attempt"] != 3:
        ledger.outcome.wrong.append(f"ended {job['state']}, code {code}, after {job['attempt']} attempts")
    ledger.submit(bench.spec(0))
    return ledger.settle(120)


def many_submitters(bench: Bench, scale: Scale) -> Outcome:
    """Many clients submit at the same moment, each over a connection of its own."""
    from recon.client.client import Client

    ledger = Ledger(bench, "concurrent submitters")

    def one(kind: int) -> float:
        with Client(bench.deployment.url) as client:
            began = time.monotonic()
            ledger.submit(bench.spec(kind), client)
            return time.monotonic() - began

    with ThreadPoolExecutor(scale.submitters) as pool:
        slowest = max(pool.map(one, range(scale.submitters)))
    ledger.outcome.measured = {"submitters": scale.submitters, "slowest_s": round(slowest, 2)}
    return ledger.settle(scale.settle_s)


def silent_clients(bench: Bench, scale: Scale) -> Outcome:
    """Clients that ask for results and events and never read: nobody else notices."""
    ledger = Ledger(bench, "clients that never read")
    job_id = ledger.submit(bench.spec(0))
    ledger.poll()
    _until(lambda: ledger.poll() == 0, 60)
    paths = [f"/v1/jobs/{job_id}/results/volume.npy", f"/v1/jobs/{job_id}/events", "/openapi.json"]
    silent = []
    for number in range(100):
        connection = _connect(bench, receive=2048)
        # Asked many times on one connection, the answers outgrow every buffer on the way.
        request = f"GET {paths[number % 3]} HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        connection.sendall(request.encode())
        silent.append(connection)
    ledger.outcome.faults = len(silent)
    times = []
    for kind in range(20):
        began = time.monotonic()
        ledger.submit(bench.spec(kind))
        times.append(time.monotonic() - began)
    ledger.outcome.measured = {"silent": len(silent), "slowest_submit_s": round(max(times), 3)}
    found = ledger.settle(scale.settle_s)
    for connection in silent:
        connection.close()
    return found


def _busy(bench: Bench, name: str, jobs: int) -> Ledger:
    """A ledger whose jobs wait, and of which one runs."""
    ledger = Ledger(bench, name)
    for kind in range(jobs):
        ledger.submit(bench.spec(kind, slow=True))
    if not _until(ledger.running, STARTUP_S):
        ledger.outcome.wrong.append("nothing ran when the faults began")
    return ledger


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def _uploads(bench: Bench) -> set[str]:
    return {p.name for p in (bench.deployment.store / "uploads").iterdir() if not p.name.startswith(".")}


def _connect(bench: Bench, receive: int | None = None) -> socket.socket:
    where = urlsplit(bench.deployment.url)
    connection = socket.socket()
    if receive is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    connection.settimeout(30)
    connection.connect((where.hostname, where.port))
    return connection


SCENARIOS = (
    killed_workers, killed_redis, wiped_redis, killed_api, duplicate_deliveries, poison, many_submitters,
    silent_clients,
)  # fmt: skip
