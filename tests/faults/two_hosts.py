"""The fault scenario with two hosts: one's worker is killed, then its cable is pulled for a minute."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import cast

from recon.client.client import Client
from recon.spec.job import JobSpec
from tests.faults import hosts
from tests.faults.deployment import Deployment, kill, tree
from tests.faults.faults import Scale
from tests.faults.hosts import Host
from tests.faults.ledger import KINDS, Bench, Ledger, Outcome, volume
from workers import lease, presence

CUT_OFF_S = 60.0
PATIENCE_S = 240.0
SLABS = 8
QUEUED = 4
"""Jobs that wait or run at least, where the other host is to take one."""
NAME = "two hosts"


class TwoHosts(Deployment):
    """A deployment whose first worker runs on this machine, beside Redis and the API, and all others on another host.

    Parameters
    ----------
    store
        Folder of the jobs, which both hosts share.
    host
        The other host.
    address
        This machine's, for the other.
    """

    def __init__(self, store: Path, host: Host, address: str) -> None:
        super().__init__(store, workers=1, address=address)
        self._mark = f"@{host.name}".encode()
        self.host = host

    def worker_command(self, number: int) -> list[str]:
        command = super().worker_command(number)
        return command if number == 0 else self.host.command(command)

    def wait_for_workers(self, count: int) -> None:
        """Wait until that many workers have announced themselves."""
        found = _until(lambda: presence.count(self.redis_url)["cpu"] == count, PATIENCE_S)
        assert found, f"there are not {count} workers after {PATIENCE_S:g} s, see {self.logs / 'worker.log'}"

    def leases_there(self) -> set[bytes]:
        """Leases of attempts that the other host makes; one that has died keeps its own for some seconds."""
        with self.broker() as client:
            held = (client.get(key) for key in cast(list[bytes], client.keys(f"{lease.PREFIX}*")))
            return {value for value in cast(Iterator[bytes | None], held) if value and value.endswith(self._mark)}

    def kill_there(self) -> None:
        """Kill -9 the other host's worker with all its processes; it is started again."""
        for pid in tree(self.workers[1].pid):
            kill(pid)


def two_hosts(folder: Path, scale: Scale, cut_off_s: float = CUT_OFF_S) -> Outcome:
    """Workers on two hosts; both faults meet the other host in a queue of small jobs, and in a job of many slabs.

    The job of many slabs is first computed by one worker and then, undisturbed, by both, for the time it takes.
    """
    reason = hosts.forbidden()
    if reason is not None:
        return Outcome(NAME, measured={"skipped": reason})
    with hosts.second_host() as (address, host), TwoHosts(folder / "store", host, address) as deployment:
        bench = Bench(deployment, folder, scale.iterations)
        learned = bench.learn()
        large = _large_job(bench, folder)
        alone_s, _ = _computed(bench, large)
        deployment.add_worker()
        deployment.wait_for_workers(2)
        ledger = Ledger(bench, NAME)
        _taken_there(ledger, deployment)  # it has loaded what it needs before time is taken
        _settle(ledger)
        both_s, helped = _computed(bench, large)
        after_kill_s = _disturbed(ledger, deployment, large, deployment.kill_there)
        after_cut_s = _disturbed(ledger, deployment, large, lambda: _cut_off(ledger, host, cut_off_s))
        found = ledger.settle(scale.settle_s)
    found.wrong += learned.wrong
    found.measured = {
        "slabs": SLABS, "one_worker_s": round(alone_s, 1), "both_hosts_s": round(both_s, 1),
        "slabs_by_the_helper": helped, "cut_off_s": cut_off_s,
        "back_after_kill_s": round(after_kill_s, 1), "back_after_cut_s": round(after_cut_s, 1),
    }  # fmt: skip
    return found


def _large_job(bench: Bench, folder: Path) -> JobSpec:
    """A job of `SLABS` chunks of slices, each some seconds of one core."""
    with Client(bench.deployment.url) as client:
        upload = client.upload(volume(folder, "slabs", -(-16 * SLABS // KINDS)))
    return bench.spec(
        0,
        name="slabs",
        input={"upload": upload, "format": "nifti", "slices": [0, 16 * SLABS], "simulate": {"views": 30}},
        method={"name": "tv", "dimensions": 2, "iterations": bench.iterations},
    )


def _computed(bench: Bench, spec: JobSpec) -> tuple[float, int]:
    """Seconds that a job takes alone in the queue, and how many of its chunks a helper computed."""
    ledger = Ledger(bench, spec.name)
    job_id = str(ledger.submit(spec))
    _settle(ledger)
    record = ledger.client.job(job_id)
    assert record["state"] == "succeeded", record
    found = ledger.sha256(job_id)
    assert bench.expected.setdefault(spec.name, found) == found, "two hosts gave other bits than one"
    report = json.loads((bench.deployment.store / "jobs" / job_id / "output" / "report.json").read_text())
    return report["seconds"]["total"], report["chunks_by_other_workers"]


def _disturbed(ledger: Ledger, deployment: TwoHosts, large: JobSpec, fault: Callable[[], None]) -> float:
    """Disturb the other host in a queue and in a job of many slabs; seconds until it took jobs of the queue again."""
    _taken_there(ledger, deployment)
    disturbed = deployment.leases_there()
    fault()
    back_s = _taken_there(ledger, deployment, disturbed)
    _settle(ledger)
    job_id = str(ledger.submit(large))
    if not _until(lambda: _finished_chunks(deployment, job_id) > 1, PATIENCE_S):
        ledger.outcome.wrong.append("the job of many slabs did not begin")
    fault()
    _settle(ledger)
    ledger.outcome.faults += 2
    return back_s


def _settle(ledger: Ledger) -> None:
    """Wait until all jobs have ended; those that do not are counted in the end."""
    _until(lambda: not ledger.poll(), PATIENCE_S)


def _fill(ledger: Ledger, jobs: int) -> None:
    """Submit small jobs that take their time."""
    for kind in range(jobs):
        ledger.submit(ledger.bench.spec(kind, slow=True))


def _cut_off(ledger: Ledger, host: Host, seconds: float) -> None:
    """Pull the other host's cable for some time, in which jobs go on being submitted."""
    host.cut_off()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        _fill(ledger, 1)
        time.sleep(seconds / 10)
    host.rejoin()


def _taken_there(ledger: Ledger, deployment: TwoHosts, known: Collection[bytes] = ()) -> float:
    """Seconds until the other host computes a job of the queue, in which there are always some, by no `known` lease."""
    began = time.monotonic()

    def taken() -> bool:
        if ledger.poll() < QUEUED:
            _fill(ledger, QUEUED)
        return bool(deployment.leases_there().difference(known))

    if not _until(taken, PATIENCE_S):
        ledger.outcome.wrong.append(f"the other host computed no job within {PATIENCE_S:g} s")
    return time.monotonic() - began


def _finished_chunks(deployment: Deployment, job_id: str) -> int:
    """How many chunks of a job are finished."""
    return len(list((deployment.store / "jobs" / job_id / "work").glob("chunk-*.npy")))


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return False
