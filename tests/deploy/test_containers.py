"""The containers of compose.yaml: jobs pass through them, also when one is killed, as users without privileges.

The images must have been built (``docker compose build`` or ``podman-compose build``), and port 8000 be free.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recon.client.client import Client
from recon.spec.job import JobSpec
from recon.spec.job_states import TERMINAL
from tests.faults.ledger import volume
from tests.service.whole_service import wait_for
from workers import keys

COMPOSE = {"docker": ["docker", "compose"], "podman": ["podman-compose"]}
FILE = Path(__file__).parent.parent.parent / "compose.yaml"
IMAGE = "diffusion-recon:latest"
PORT = 8000
STARTUP_S = 120.0
pytestmark = pytest.mark.slow


def engine() -> str:
    """The program that has our image; skips the test where none has."""
    for name, compose in COMPOSE.items():
        if shutil.which(name) is None or shutil.which(compose[0]) is None:
            continue
        if subprocess.run([name, "image", "inspect", IMAGE], capture_output=True).returncode == 0:
            return name
    pytest.skip(f"neither docker nor podman, with compose, has an image {IMAGE}")


class Containers:
    """The services of compose.yaml, as containers of a project of their own.

    Parameters
    ----------
    engine
        ``docker`` or ``podman``.
    env
        For compose.
    """

    def __init__(self, engine: str, env: dict[str, str]) -> None:
        self.engine, self.project, self.env = engine, f"recon-test-{os.getpid()}", {**os.environ, **env}

    def compose(self, *words: str) -> None:
        """Run compose on our file."""
        command = [*COMPOSE[self.engine], "--project-name", self.project, "--file", str(FILE), *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def of(self, service: str) -> str:
        """Id of a service's container."""
        wanted = {"project": self.project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in wanted.items()]
        return self.run("ps", "--all", "--quiet", *filters).strip()

    def run(self, *words: str) -> str:
        """What a command of the engine prints."""
        return subprocess.run([self.engine, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def within(self, service: str, script: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in a service's container."""
        command = [self.engine, "exec", self.of(service), "sh", "-c", script]
        return subprocess.run(command, capture_output=True, text=True)

    def healthy(self, service: str) -> bool:
        """Whether the service's health check passes, asked now."""
        # Docker asks by itself, Podman on demand; so what is asked is run as they would.
        found: str = self.run("inspect", "--format", "{{json .Config.Healthcheck.Test}}", self.of(service))
        words: list[str] = json.loads(found)
        command = words[1:] if words[0] == "CMD" else ["sh", "-c", words[1]]
        return subprocess.run([self.engine, "exec", self.of(service), *command], capture_output=True).returncode == 0


@contextmanager
def started(folder: Path) -> Iterator[tuple[Containers, Client]]:
    """Start the services, wait until a worker is there, and remove them with their volumes afterwards."""
    secret, entry = keys.make("test")
    file = folder / "recon-keys"
    file.write_text(f"- {keys.entry(entry)}\n")
    file.chmod(0o644)  # the container's user reads it
    env = {"RECON_REDIS_PASSWORD": "of-the-test", "RECON_KEYS_FILE": str(file), "RECON_WORKER_CPUS": "1"}
    found = Containers(engine(), env)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is taken")
    try:
        found.compose("up", "--detach", "--no-build")
        with Client(f"http://127.0.0.1:{PORT}", secret) as client:
            deadline = time.monotonic() + STARTUP_S
            while not client.ready() and time.monotonic() < deadline:
                time.sleep(0.5)
            assert client.ready(), found.run("logs", found.of("api"))
            yield found, client
    finally:
        found.compose("down", "--volumes")


def test_jobs_pass_through_the_containers(tmp_path: Path) -> None:
    with started(tmp_path) as (containers, client):
        upload = client.upload(volume(tmp_path))

        def submitted(method: dict[str, object]) -> str:
            scan = {"upload": upload, "format": "nifti", "slices": [0, 1], "simulate": {"views": 60}}
            spec = JobSpec.parse({"input": scan, "acquisition": "ct-parallel", "method": method})
            return str(client.submit(spec)["id"])

        for method in ({"name": "fbp"}, {"name": "red-diff", "steps": 4}):  # one without weights, one with
            job = wait_for(client, submitted(dict(method)), *TERMINAL)
            assert job["state"] == "succeeded", job["error"]
        assert [name for name in ("redis", "api", "worker-cpu") if not containers.healthy(name)] == []
        for name in ("api", "worker-cpu"):
            assert containers.within(name, "id -u").stdout.strip() == "10001"
            assert containers.within(name, "touch /opt/recon/file").returncode != 0  # a read-only file system
            assert containers.within(name, "grep CapEff /proc/self/status").stdout.split()[-1].strip("0") == ""

        lasting = submitted({"name": "tv", "iterations": 300})
        wait_for(client, lasting, "running")
        containers.run("kill", containers.of("worker-cpu"))
        containers.run("start", containers.of("worker-cpu"))
        job = wait_for(client, lasting, *TERMINAL)
        assert job["state"] == "succeeded" and job["attempt"] == 2

        lasting = submitted({"name": "tv", "iterations": 300})
        wait_for(client, lasting, "running")
        containers.run("restart", containers.of("redis"))
        waiting = submitted({"name": "fbp"})
        for job_id in (lasting, waiting):
            assert wait_for(client, job_id, *TERMINAL)["state"] == "succeeded"
