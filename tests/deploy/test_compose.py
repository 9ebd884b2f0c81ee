"""compose.yaml says what the deployment needs, in words that the command line and the settings know."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from recon import settings as local
from workers.embedded import worker_command
from workers.settings import Settings

ROOT = Path(__file__).parent.parent.parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = ("api", "worker-cpu", "worker-gpu")


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Hold a text against the schema of the Compose specification."""

    def checked(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "compose.yaml").write_text(text)
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        return subprocess.run([*command, str(tmp_path / "compose.yaml")], capture_output=True, text=True)

    return checked


def test_the_file_is_what_the_compose_specification_says(
    check: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    text = (ROOT / "compose.yaml").read_text()
    done = check(text)
    assert done.returncode == 0, done.stdout
    for right, wrong in (("stop_grace_period:", "grace:"), ("cap_drop:", "cap_dorp:"), (": true", ": [1]")):
        assert right in text and check(text.replace(right, wrong)).returncode == 1


def test_the_services() -> None:
    assert set(SERVICES) == {"redis", *OURS}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert not any("profiles" in SERVICES[name] for name in ("redis", "api", "worker-cpu"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_guarded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["tmpfs"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["restart"] == "unless-stopped" and service["stop_grace_period"]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL") and service["healthcheck"]["retries"] > 1
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"] and limits["pids"] and limits["cpus"]
    assert not service.get("privileged") and "network_mode" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_redis_forgets_nothing_and_asks_for_a_password() -> None:
    command = SERVICES["redis"]["command"]
    for option, value in (("--appendonly", "yes"), ("--maxmemory-policy", "noeviction")):
        assert command[command.index(option) + 1] == value
    assert "RECON_REDIS_PASSWORD:?" in command[command.index("--requirepass") + 1]
    assert "redis:/data" in SERVICES["redis"]["volumes"] and "ports" not in SERVICES["redis"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_share_store_and_queue(name: str) -> None:
    service = SERVICES[name]
    assert "store:/store" in service["volumes"] and service["environment"]["RECON_STORE"] == "/store"
    assert "@redis:" in service["environment"]["REDIS_URL"]
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", OURS)
def test_settings_can_be_given_and_default_to_those_of_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Settings()
    written: dict[str, str] = SERVICES[name]["environment"]
    for variable, value in written.items():
        choice = re.fullmatch(r"\$\{(\w+):-(.*)\}", value)
        if choice:
            assert choice[1] == variable or variable.endswith("_NUM_THREADS")  # the host's has the same name
            monkeypatch.setenv(variable, choice[2])
    found = Settings()
    # A container is given ten minutes to stop, of which a worker may use most.
    stop_s = 540 if "worker" in name else 0
    assert found == plain.model_copy(update={"stop_s": stop_s})
    assert not stop_s or SERVICES[name]["stop_grace_period"] == "10m"
    if name == "api":
        for setting in ("RETENTION_DAYS", "UPLOAD_DAYS", "WEBHOOK_SECRET", "WEBHOOK_ALLOW", "IDLE_S", "DEVICES"):
            assert f"RECON_{setting}" in written
        assert {"RECON_HOSTS", "RECON_PROXIES"} <= set(written)


def test_a_gpu_worker_gets_a_torch_that_can_use_it() -> None:
    index = SERVICES["worker-gpu"]["build"]["args"]["TORCH_INDEX"]
    assert re.search(r"/whl/cu\d+\}$", index)
    assert SERVICES["worker-gpu"]["image"] != SERVICES["worker-cpu"]["image"]
    text = (ROOT / "Dockerfile").read_text()
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu" in text and "--extra-index-url ${TORCH_INDEX}" in text


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ones_that_we_have(name: str) -> None:
    from recon.cli.main import app

    program, command, *words = SERVICES[name]["command"]
    assert program == "recon"
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    found.make_context(command, list(words))  # raises on an option that there is not


def test_the_api_is_asked_on_its_port_for_a_route_that_it_has() -> None:
    from api.app import create_app

    service = SERVICES["api"]
    port = service["command"][service["command"].index("--port") + 1]
    assert [address.rsplit(":", 1)[1] for address in service["ports"]] == [port]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)'", service["healthcheck"]["test"][-1])
    assert asked is not None and asked[1] == port
    assert asked[2] in {getattr(route, "path", None) for route in create_app().routes}
    redis_port = re.search(r"@redis:(\d+)/", service["environment"]["REDIS_URL"])
    assert redis_port is not None and redis_port[1] == "6379"  # what redis-server listens on when not told


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_is_asked_by_the_name_that_it_has(name: str) -> None:
    kind, asked = SERVICES[name]["healthcheck"]["test"]
    # Podman sets no HOSTNAME for a health check, and no shell must: the program tells in every container.
    assert kind == "CMD-SHELL" and asked.startswith("celery -A workers.app inspect ping -d celery@$$(hostname) ")
    assert not {"-n", "--hostname"} & set(worker_command())  # so that Celery calls it celery@ and the host's name


def test_environment_names_are_ones_that_somebody_reads() -> None:
    known = {local.variable(name) for settings in (Settings, local.Settings) for name in settings.model_fields}
    known |= {"REDIS_URL", "HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    for name in OURS:
        unknown = set(SERVICES[name]["environment"]) - known
        assert not unknown, f"{name}: {unknown}"


def test_the_image_has_what_the_services_start() -> None:
    text = (ROOT / "Dockerfile").read_text()
    user = SERVICES["api"]["user"].split(":")[0]
    assert f"--uid {user}" in text and "USER recon" in text and "chown recon /store" in text
    for package in ("operators", "recon", "workers", "api"):
        assert f"COPY {package} {package}" in text
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.M) for word in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".git" in ignored and not {"operators", "recon", "workers", "api"} & set(ignored)
