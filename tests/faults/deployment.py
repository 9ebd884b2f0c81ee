"""A whole deployment to break: Redis, API and workers as processes of their own, killed and started again at will."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import redis

from operators.errors import BackendUnavailable
from recon.client.client import Client
from recon.storage.redis_binary import redis_server

STARTUP_S = 90.0
Target = Literal["child", "tree", "main"]
"""What dies of a worker: the process that computes, everything, or the process that hands out the jobs."""


class Deployment:
    """Redis with an append-only file, ``recon serve`` and ``recon worker``, on one store.

    Parameters
    ----------
    store
        Folder of the jobs; Redis and the logs live beside them.
    workers
        Worker processes; one that dies is started again, as a service manager would.
    env
        More environment, for API and workers.
    logs
        Folder of logs and of Redis' file; beside the store when not given.
    address
        On which Redis listens; no other machine may reach it, since it asks for no password.
    """

    def __init__(
        self,
        store: Path,
        workers: int = 1,
        env: dict[str, str] | None = None,
        logs: Path | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.store, self.logs, self.address = store, logs or store.with_name(f"{store.name}-logs"), address
        self.redis_port, self.port = free_port(), free_port()
        self.redis_url = f"redis://{address}:{self.redis_port}/0"
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ, "REDIS_URL": self.redis_url, "RECON_STORE": str(store),
            # Workers share the cores, and results must not depend on how many threads there were.
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
            **(env or {}),
        }  # fmt: skip
        self.wanted_workers = workers
        self.redis: subprocess.Popen[bytes] | None = None
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._stopping, self._lock = threading.Event(), threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.close)
            for folder in (self.store, self.logs / "redis"):
                folder.mkdir(parents=True, exist_ok=True)
            self.start_redis()
            self.start_api()
            self.workers = [self._start_worker(number) for number in range(self.wanted_workers)]
            threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything; what does not stop in time is killed."""
        self._stopping.set()
        with self._lock:
            alive = [p for p in (*self.workers, self.api, self.redis) if p is not None and p.poll() is None]
            trees = {pid for process in self.workers for pid in tree(process.pid)}
            for process in alive:
                process.terminate()
            for process in alive:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for pid in trees:
                kill(pid)

    def start_redis(self) -> None:
        """Start Redis on what its append-only file holds."""
        command = [
            redis_server(), "--port", str(self.redis_port), "--bind", self.address, "--protected-mode", "no",
            "--dir", str(self.logs / "redis"), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction",
            "--daemonize", "no",
        ]  # fmt: skip
        self.redis = self._start(command, "redis")
        deadline = time.monotonic() + STARTUP_S
        while time.monotonic() < deadline:
            try:
                with self.broker() as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.05)
        raise BackendUnavailable("Redis did not start", field="redis", remedy=f"see {self.logs / 'redis.log'}")

    def start_api(self) -> None:
        """Start the API and wait until it accepts jobs."""
        self.api = self._start([*RECON, "serve", "--port", str(self.port)], "api")
        deadline = time.monotonic() + STARTUP_S
        with Client(self.url) as client:
            while time.monotonic() < deadline:
                if client.ready():
                    return
                time.sleep(0.1)
        raise BackendUnavailable("the API did not start", field="api", remedy=f"see {self.logs / 'api.log'}")

    def broker(self) -> redis.Redis:
        """A connection to Redis."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=5, socket_connect_timeout=2)

    def kill_worker(self, target: Target, chance: random.Random) -> bool:
        """Kill -9 a worker, or part of it; whether there was one to kill."""
        with self._lock:
            alive = [p for p in self.workers if p.poll() is None]
            if not alive:
                return False
            main = chance.choice(alive).pid
            found = tree(main)
            victims = {"child": found[-1:], "tree": found, "main": [main]}[target]
            if target == "child" and len(found) < 2:
                return False
            for pid in victims:
                kill(pid)
            return True

    def rss_bytes(self) -> int:
        """Memory that the API's process holds."""
        assert self.api is not None
        return _status(self.api.pid, "VmRSS")

    def add_worker(self) -> None:
        """Start one more worker."""
        with self._lock:
            self.workers.append(self._start_worker(len(self.workers)))

    def worker_command(self, number: int) -> list[str]:
        """Command that starts a worker, by its number."""
        return [*RECON, "worker"]

    def _start_worker(self, number: int) -> subprocess.Popen[bytes]:
        return self._start(self.worker_command(number), "worker")

    def _supervise(self) -> None:
        while not self._stopping.wait(0.5):
            with self._lock:
                if self._stopping.is_set():
                    return
                for number, process in enumerate(self.workers):
                    if process.poll() is not None:
                        self.workers[number] = self._start_worker(number)

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


RECON = [sys.executable, "-m", "recon.cli.main"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def kill(pid: int | Any) -> None:
    """Kill -9, if it still lives."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def tree(pid: int) -> list[int]:
    """A process and its descendants, the deepest last."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    found, level = [], [pid]
    while level:
        found += level
        level = [child for child, parent in parents.items() if parent in level]
    return found


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
