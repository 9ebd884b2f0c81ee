"""Sandboxed checks and inspections of untrusted files: one process each, with limits on memory and time.

A fork server, ``python -m recon.formats.sandbox``, has the readers imported and forks a process per check, so that a
check costs milliseconds and starts clean. A damaged file can crash that process, or exhaust what it may use: the
answer is an error like any other, and nothing but this check is lost.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.errors import BackendUnavailable, GeometryError, InputError, ReconError, ResourceLimit
from recon.formats.safety import limit_bytes
from recon.measurement.header import Header
from recon.spec.contents import Contents
from recon.spec.job import Input, JobSpec

CPU_S = 120
"""Computing time per check; decompressing and reading 8 GB takes about half."""
WALL_S = 300
"""Wall-clock time per check, waiting for the disk included."""
AT_ONCE = 4
"""Concurrent checks, at most; further ones wait."""
REMEMBERED = 256
"""Size of the cache of answers about files that passed, so that many jobs of one file need one check."""
NOT_READ = {"name", "tags", "priority", "device", "webhook_url", "seed"}
"""Fields of a specification that no check depends on."""
log = logging.getLogger("recon.sandbox")
_ERRORS = {kind.code: kind for kind in (InputError, GeometryError, ResourceLimit)}


def memory_limit() -> int:
    """Address space per check, in bytes: some copies of the largest array, at most half of the machine."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(2 * 2**30 + 4 * limit_bytes(), max(physical // 2, 2**30)))


class Sandbox:
    """Fork server for checks of files, started when it is first needed. Thread-safe."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def check(self, spec: JobSpec, files: Mapping[str, Path]) -> Header:
        """`recon.formats.reader.check`, in another process.

        Raises
        ------
        InputError
            What the check found, or that it crashed or took too long.
        ResourceLimit
            Also when reading needs more memory than a check may use.
        """
        data = spec.model_dump(mode="json", exclude_unset=True, exclude=NOT_READ)
        found = self._remembered({"check": data, "files": {name: str(path) for name, path in files.items()}})
        return Header.model_validate(found)

    def inspect(self, path: Path, given: Input) -> Contents:
        """`recon.formats.inspect.inspect`, in another process; raises as `check` does."""
        data = given.model_dump(mode="json", exclude_unset=True)
        return Contents.model_validate(self._remembered({"inspect": data, "files": {"input": str(path)}}))

    def _remembered(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer to a question about files, which is asked once as long as these stay the same."""
        question = {**question, "bytes": memory_limit()}
        asked = json.dumps([question, [_stamp(Path(path)) for path in question["files"].values()]])
        key = hashlib.sha256(asked.encode()).hexdigest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        answer = self._ask(question)
        if answer is None:
            raise InputError(
                f"a file of the job made its reader crash, or take more than {CPU_S} s",
                field="input",
                remedy="the file is damaged, or far too large; read it with `recon run` to see more",
            )
        if "found" not in answer:
            raise _ERRORS.get(answer["code"], InputError)(
                answer["message"], field=answer["field"], remedy=answer["remedy"]
            )
        found: dict[str, Any] = answer["found"]
        with self._lock:
            self._known[key] = found
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Receive the answer; None if the checking process died or took too long."""
        ours, theirs = socket.socketpair()
        answer = b""
        with self._slots, ours:
            ours.settimeout(WALL_S)
            try:
                with theirs:
                    self._send(theirs)
                ours.sendall(json.dumps(question).encode() + b"\n")
                while piece := ours.recv(2**16):
                    answer += piece
            except OSError as error:
                log.error("a check of files has no answer: %s", error)
        if not answer:
            raise BackendUnavailable("no process could be started to check the files", remedy="try again later")
        try:
            found: dict[str, Any] = json.loads(answer)
        except ValueError:
            log.error("a check of files ended without an answer")
            return None
        return found

    def _send(self, connection: socket.socket) -> None:
        """Hand a connection to the fork server, which forks a process to answer on it."""
        with self._lock:
            socket.send_fds(self._fork_server(), [b"\0"], [connection.fileno()])

    def _fork_server(self) -> socket.socket:
        """Socket of the fork server; starts one if none runs."""
        if self._requests is None or self._server is None or self._server.poll() is not None:
            if self._requests is not None:
                self._requests.close()
            self._requests, theirs = socket.socketpair()
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "recon.formats.sandbox"],
                    stdin=theirs.fileno(),
                    stdout=2,  # what a library prints
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # a Ctrl-C in the terminal ends it through us
                )
        return self._requests

    def start(self) -> None:
        """Start the fork server now, so that the first check need not wait for its imports."""
        with self._lock:
            self._fork_server()

    def close(self) -> None:
        """End the fork server; checks that run end within their limits."""
        with self._lock:
            if self._server is not None and self._requests is not None:
                self._requests.close()
                self._server.kill()
                self._server.wait()


def _stamp(path: Path) -> list[int]:
    """Inode, size and time of the last change; empty where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return []  # the check will say so
    return [status.st_ino, status.st_size, status.st_mtime_ns]


shared = Sandbox()
"""Sandbox of this process."""


def main() -> None:
    """Fork a process per connection received on standard input, until that is closed."""
    import numpy.ma  # noqa: F401 - h5py imports it with its first array

    import recon.formats.inspect
    import recon.formats.reader  # noqa: F401 - once here, so that no check pays for it

    gc.freeze()  # a collection would touch, and so copy, all memory shared with the checks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none is waited for
    requests = socket.socket(fileno=0)
    while descriptors := socket.recv_fds(requests, 1, 1)[1]:
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                requests.close()
                _answer(connection)
                os._exit(0)


def _answer(connection: socket.socket) -> None:
    """Run the check that arrives, within the limits, and send the answer."""
    connection.sendall(b"\n")  # begun: if nothing follows, the check has failed, and not its start
    with connection.makefile("rb") as lines:
        question = json.loads(lines.readline())
    signal.alarm(WALL_S)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)  # a check writes no file
    _limit(resource.RLIMIT_CPU, CPU_S)
    _limit(resource.RLIMIT_AS, question["bytes"])
    answer = _checked(question)
    _lift()
    connection.sendall(json.dumps(answer).encode())
    connection.shutdown(socket.SHUT_WR)  # or the answer would wait until this process has ended


def _lift() -> None:
    """Lift the limits on memory and files, for the answer and for the log."""
    for what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
        _limit(what, resource.RLIM_INFINITY)


def _limit(what: int, value: int) -> None:
    """Set the soft limit, as far as the hard one allows."""
    hard = resource.getrlimit(what)[1]
    allowed = hard if value == resource.RLIM_INFINITY else value
    resource.setrlimit(what, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))


def _checked(question: dict[str, Any]) -> dict[str, Any]:
    from recon.formats import inspect, reader

    files = {name: Path(path) for name, path in question["files"].items()}
    try:
        found: Header | Contents
        if "inspect" in question:
            found = inspect.inspect(files["input"], Input.model_validate(question["inspect"]))
        else:
            found = reader.check(JobSpec.parse(question["check"]), files)
    except ReconError as error:
        return error.as_dict()
    except MemoryError:
        message = f"reading the files takes more than {question['bytes'] / 1e9:.1f} GB of memory"
        return ResourceLimit(message, field="input", remedy="send fewer slices").as_dict()
    except Exception as error:  # a parser of a damaged file can fail in any way: the log has it whole
        _lift()
        log.exception("an unexpected error while checking %s", question["files"])
        message = f"the files cannot be read: unexpected {type(error).__name__}"
        return InputError(message, field="input", remedy="the file is probably damaged").as_dict()
    return {"found": found.model_dump(mode="json")}


if __name__ == "__main__":
    main()
