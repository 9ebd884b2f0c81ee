"""Embedded service: a private Redis, one worker and the API, started and stopped together on one machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from operators.errors import BackendUnavailable, Conflict
from recon.spec.job_states import Device
from recon.storage.locks import try_lock_open
from recon.storage.redis_binary import redis_server
from workers.queues import queues

STARTUP_S = 20.0
STOP_S = 20.0
RESTART_S = 2.0
logger = logging.getLogger("recon.embedded")


@contextmanager
def private_redis(data: Path) -> Iterator[str]:
    """Run a Redis on a unix socket with its append-only file in `data`; yields its URL.

    Raises
    ------
    Conflict
        If a Redis of another, perhaps orphaned, service still writes there.
    """
    data.mkdir(parents=True, exist_ok=True)
    # Socket paths are limited to about 100 characters, a store may lie deeper: the socket gets its own folder.
    with tempfile.TemporaryDirectory(prefix="recon-") as short, (data / "lock").open("a") as lock:
        if not try_lock_open(lock):
            raise Conflict(
                f"another service uses {data.parent}", field="store", remedy="stop it, or choose another --store"
            )
        socket = Path(short) / "redis.sock"
        command = [
            redis_server(), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700",
            "--dir", str(data), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction",
            "--logfile", str(data / "redis.log"), "--daemonize", "no",
        ]  # fmt: skip
        # Redis inherits the lock, so that it is held as long as Redis lives, whatever becomes of us.
        with running(command, keep=(lock.fileno(),)) as process:
            _wait_for_redis(socket, process)
            yield f"redis+socket://{socket}"


def _wait_for_redis(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_S
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)  # still starting, or loading its file
    raise BackendUnavailable("the private Redis did not start", field="redis", remedy="see redis.log in the store")


@contextmanager
def running(
    command: list[str], env: dict[str, str] | None = None, log: Path | None = None, keep: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process in a session of its own, and stop it at the end: by SIGTERM, then by SIGKILL.

    A session of its own keeps a Ctrl-C in the terminal from reaching it before we stop it in order.
    """
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep,
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except BaseException as reason:  # too slow, or a second Ctrl-C: no child is left behind either way
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise


@contextmanager
def kept_running(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run a child process and start it again whenever it ends by itself."""
    stopping, starting = threading.Event(), threading.Lock()
    with ExitStack() as stack:
        current = [stack.enter_context(running(command, env, log))]

        def watch() -> None:
            while True:
                status = current[0].wait()
                stopping.wait(RESTART_S)
                with starting:
                    if stopping.is_set():
                        return
                    logger.error("the worker ended with status %s, starting it again", status)
                    current[0] = stack.enter_context(running(command, env, log))

        watcher = threading.Thread(target=watch, name="worker watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            with starting:
                stopping.set()


def worker_command(concurrency: int = 1, device: Device = "cpu") -> list[str]:
    """Command line of a worker of this installation, for the queues of ``cpu`` or ``gpu``."""
    return [
        sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker", "--pool", "prefork",
        "--concurrency", str(concurrency), "--loglevel", "INFO", "--without-gossip", "--without-mingle",
        "--queues", ",".join(queues(device)),
    ]  # fmt: skip


@contextmanager
def redis_and_worker(store: Path) -> Iterator[str]:
    """Run a private Redis and one worker on `store`; yields the Redis URL, also set in this process's environment."""
    store.mkdir(parents=True, exist_ok=True)
    with private_redis(store / "redis") as url:
        env = {"REDIS_URL": url, "RECON_STORE": str(store)}
        os.environ.update(env)
        with kept_running(worker_command(), env, store / "worker.log"):
            yield url
