"""Checking untrusted files in processes of their own, with limits on memory and time.

A helper, ``python -m recon.formats.sandbox``, has the readers imported and answers one check after the other, so that
a check costs milliseconds. A damaged file can crash its helper, or exhaust what the helper may use: the answer is an
error like any other, the process that asked goes on, and the next check gets a new helper.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.errors import GeometryError, InputError, ReconError, ResourceLimit
from recon.formats.safety import limit_bytes
from recon.measurement.header import Header
from recon.spec.job import JobSpec

CPU_S = 120
"""Computing time of a check; decompressing and reading 8 GB takes about half."""
WALL_S = 300.0
"""Waiting for the disk included."""
AT_ONCE = 4
"""Helpers, at most; further checks wait."""
CHECKS = 200
"""Of one helper: then its memory is in pieces, and another takes its place."""
PATIENCE_S = 0.5
"""Waiting for a helper that is busy, before another is started."""
REMEMBERED = 256
"""Outlines of the latest files that passed: whoever sends many jobs of one file need not wait for each check."""
NOT_READ = {"name", "tags", "priority", "device", "webhook_url", "seed"}
"""Of a specification: a check does not depend on them."""
log = logging.getLogger("recon.sandbox")
_ERRORS = {kind.code: kind for kind in (InputError, GeometryError, ResourceLimit)}


def memory_limit() -> int:
    """Bytes of address space a check may use: some copies of the largest array, at most half of the machine."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(2 * 2**30 + 4 * limit_bytes(), max(physical // 2, 2**30)))


class Sandbox:
    """Helpers that check files, started as they are needed. Thread-safe."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._idle: list[_Helper] = []
        self._returned = threading.Condition()
        self._known: OrderedDict[str, Header] = OrderedDict()
        self._lock = threading.Lock()
        self._alive = 0

    def check(self, spec: JobSpec, files: Mapping[str, Path]) -> Header:
        """`recon.formats.reader.check`, in another process.

        Raises
        ------
        InputError
            What the check found, or that it crashed or took too long.
        ResourceLimit
            Also when reading needs more memory than a check may use.
        """
        question = {
            "spec": spec.model_dump(mode="json", exclude_unset=True, exclude=NOT_READ),
            "files": {name: str(path) for name, path in files.items()},
            "bytes": memory_limit(),
        }
        asked = json.dumps([question, [_stamp(path) for path in files.values()]])
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
        if "outline" in answer:
            found = Header.model_validate(answer["outline"])
            with self._lock:
                self._known[key] = found
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return found
        raise _ERRORS.get(answer["code"], InputError)(answer["message"], field=answer["field"], remedy=answer["remedy"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        with self._slots:
            helper = self._take()
            try:
                return helper.ask(question)
            finally:
                self._give_back(helper)

    def _take(self) -> _Helper:
        """A helper that lives: an idle one, or a new one if none is soon."""
        until = time.monotonic() + PATIENCE_S
        with self._returned:
            while True:
                while self._idle:
                    helper = self._idle.pop()
                    if helper.usable:
                        return helper
                    self._drop(helper)
                # To wait a moment for one that is busy is faster than to start another.
                left = until - time.monotonic()
                if not self._alive or left <= 0:
                    break
                self._returned.wait(left)
        return self._new()

    def _give_back(self, helper: _Helper) -> None:
        with self._returned:
            if not helper.usable:
                self._drop(helper)
                return
            self._idle.append(helper)
            self._returned.notify()
            if helper.worn and not helper.followed:
                helper.followed = True
                threading.Thread(target=self._follow, args=(helper,), name="new helper", daemon=True).start()

    def _follow(self, worn: _Helper) -> None:
        """Start another helper in the place of one, which answers until that is ready."""
        try:
            fresh = self._new()
        except OSError:
            log.exception("no helper could be started, going on with a worn one")
            worn.followed = False
            return
        with self._returned:
            worn.retired = True
            if worn in self._idle:
                self._idle.remove(worn)
                self._drop(worn)
        self._give_back(fresh)

    def _new(self) -> _Helper:
        helper = _Helper()
        with self._returned:
            self._alive += 1
        helper.ask(None)
        return helper

    def _drop(self, helper: _Helper) -> None:
        self._alive -= 1
        helper.end()

    def start(self) -> None:
        """Start a helper now, so that the first check need not wait for it."""
        threading.Thread(target=lambda: self._give_back(self._new()), name="first helper", daemon=True).start()

    def close(self) -> None:
        """End the helpers that are idle; the others end with this process."""
        with self._returned:
            while self._idle:
                self._drop(self._idle.pop())


class _Helper:
    """One process; it ends when its input does."""

    def __init__(self) -> None:
        self._checks = 0
        self._broken = False
        self.followed = self.retired = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recon.formats.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # a Ctrl-C in the terminal ends it through us
        )

    @property
    def usable(self) -> bool:
        """Whether another check can be asked of it."""
        return not self._broken and not self.retired and self._process.poll() is None

    @property
    def worn(self) -> bool:
        """Whether another should take its place."""
        return self._checks >= CHECKS

    def ask(self, question: dict[str, Any] | None) -> dict[str, Any] | None:
        """The answer, empty to no question; None if the process died or took too long, and must not be used again."""
        self._checks += 1
        assert self._process.stdin is not None
        try:
            _send(self._process.stdin.fileno(), question)
            line = self._read_line()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            log.error("a check of files has no answer: %s", error)
            self._broken = True
            return None
        return answer

    def end(self) -> None:
        """Stop the process, if it still runs."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        descriptor, line = self._process.stdout.fileno(), b""
        poll = select.poll()  # select() itself knows no descriptors beyond 1024
        poll.register(descriptor, select.POLLIN)
        while not line.endswith(b"\n"):
            if not poll.poll(WALL_S * 1e3):
                raise TimeoutError(f"nothing within {WALL_S:g} s")
            chunk = os.read(descriptor, 2**16)
            if not chunk:
                raise OSError(f"the helper ended with status {self._process.wait()}")
            line += chunk
        return line


def _stamp(path: Path) -> list[int]:
    """Changes with a file; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return []  # the check will say so
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _send(descriptor: int, value: dict[str, Any] | None) -> None:
    left = memoryview(json.dumps(value).encode() + b"\n")
    while left:
        left = left[os.write(descriptor, left) :]


shared = Sandbox()
"""The one of this process."""


def main() -> None:
    """A helper: answers questions, one a line, until there are no more."""
    import recon.formats.reader  # noqa: F401 - imported before there are limits

    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a check writes no file
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if question is None:
            _send(answers, {})
            continue
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        for what, value in ((resource.RLIMIT_AS, question["bytes"]), (resource.RLIMIT_CPU, used + CPU_S)):
            _limit(what, value)
        answer, sane = _checked(question)
        _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        _send(answers, answer)
        if not sane:
            return


def _limit(what: int, value: int) -> None:
    """Set the soft limit, as far as the hard one allows."""
    hard = resource.getrlimit(what)[1]
    allowed = hard if value == resource.RLIM_INFINITY else value
    resource.setrlimit(what, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))


def _checked(question: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The answer, and whether this process can be trusted with another question."""
    from recon.formats import reader

    try:
        spec = JobSpec.parse(question["spec"])
        outline = reader.check(spec, {name: Path(path) for name, path in question["files"].items()})
    except ReconError as error:
        return error.as_dict(), True
    except MemoryError:
        message = f"reading the files takes more than {question['bytes'] / 1e9:.1f} GB of memory"
        return ResourceLimit(message, field="input", remedy="send fewer slices").as_dict(), False
    except Exception as error:  # a parser of a damaged file can fail in any way: the log has it whole
        log.exception("an unexpected error while checking %s", question["files"])
        message = f"the files cannot be read: unexpected {type(error).__name__}"
        return InputError(message, field="input", remedy="the file is probably damaged").as_dict(), False
    return {"outline": outline.model_dump(mode="json")}, True


if __name__ == "__main__":
    main()
