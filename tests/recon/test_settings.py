"""Settings from the environment: defaults for one machine, and a bad value is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators import disk_cache
from operators.errors import InputError
from recon.cli.remote import connect
from recon.planning import plan
from recon.settings import Settings as LocalSettings
from recon.settings import use_disk_cache
from workers.settings import Settings

WHOLE = ["MAX_UPLOAD_BYTES", "MIN_FREE_BYTES", "RETENTION_DAYS", "UPLOAD_DAYS", "IDLE_S", "STOP_S"]


@pytest.mark.parametrize("value", ["8G", "-1", "1.0", "1_000", " 5", "", "\u00b2"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_setting_that_is_no_whole_number_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"RECON_{name}", value)
    with pytest.raises(InputError) as caught:
        Settings()
    assert caught.value.field == f"RECON_{name}" and repr(value) in caught.value.message
    assert "is not a number of" in caught.value.message and "whole number" in str(caught.value.remedy)


@pytest.mark.parametrize("value", ["8G", "-1", "1.0"])
def test_a_limit_of_memory_that_is_no_number_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_MAX_JOB_BYTES", value)
    with pytest.raises(InputError, match=f"^RECON_MAX_JOB_BYTES: '{value}' is not a number of bytes .*whole number"):
        plan.memory_limit()


@pytest.mark.parametrize("value", ["tpu", "cpu,tpu", ""])
def test_devices_that_there_are_not_are_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_DEVICES", value)
    with pytest.raises(InputError, match=rf"^RECON_DEVICES: '{value}' names no devices \(say cpu, gpu or cpu,gpu\)"):
        Settings()


def test_every_setting_of_a_service_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "RECON_STORE": "jobs", "REDIS_URL": "redis://elsewhere/0", "RECON_KEYS": "keys.yaml", "RECON_STOP_S": "540",
        "RECON_MAX_UPLOAD_BYTES": "1", "RECON_MIN_FREE_BYTES": "2", "RECON_RETENTION_DAYS": "0",
        "RECON_UPLOAD_DAYS": "3", "RECON_WEBHOOK_SECRET": "hush", "RECON_IDLE_S": "4", "RECON_PICTURE_BYTES": "5",
        "RECON_DEVICES": "cpu, gpu",
        "RECON_WEBHOOK_ALLOW": "::1/128", "RECON_HOSTS": "a.example, *.b.example", "RECON_PROXIES": "10.1.0.0/16",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    assert found.model_dump() == {
        "store": tmp_path / "jobs", "redis_url": "redis://elsewhere/0", "keys": tmp_path / "keys.yaml", "stop_s": 540,
        "max_upload_bytes": 1, "min_free_bytes": 2, "retention_days": 0, "upload_days": 3,
        "webhook_secret": "hush", "idle_s": 4, "picture_bytes": 5,
        "devices": ("cpu", "gpu"), "webhook_allow": "::1/128",
        "hosts": ("a.example", "*.b.example"), "proxies": ("10.1.0.0/16",),
    }  # fmt: skip
    assert "hush" not in repr(found)
    assert Settings(store=tmp_path, redis_url="redis://here/0").redis_url == "redis://here/0"  # what is given counts


def test_empty_variables_of_what_there_need_not_be_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEYS", "WEBHOOK_SECRET", "API_KEY", "PLAN", "MAX_JOB_BYTES", "MAX_INPUT_BYTES"):
        monkeypatch.setenv(f"RECON_{name}", "")
    found, local = Settings(), LocalSettings()
    assert found.keys is None and found.webhook_secret is None
    assert (local.api_key, local.plan, local.max_job_bytes, local.max_input_bytes) == (None, None, None, 8 * 2**30)


def used_folder() -> Path:
    use_disk_cache()
    assert disk_cache._used is not None
    return disk_cache._used.folder


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just started."""
    monkeypatch.setattr(disk_cache, "_used", None)
    for name in ("RECON_CACHE_DIR", "RECON_CACHE_BYTES", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_cache")
def test_the_folder_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert used_folder() == tmp_path / ".cache" / "diffusion-recon"
    first = disk_cache._used
    use_disk_cache()
    assert disk_cache._used is first, "what is wrong with the folder is said once per process"
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")  # to be ignored, says the specification
    assert used_folder() == tmp_path / ".cache" / "diffusion-recon"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert used_folder() == tmp_path / "caches" / "diffusion-recon"
    monkeypatch.setenv("RECON_CACHE_DIR", "mine")
    monkeypatch.chdir(tmp_path)
    assert used_folder() == tmp_path / "mine"
    assert not list(tmp_path.iterdir()), "it is made when something is kept"
    monkeypatch.setenv("RECON_CACHE_BYTES", "0")
    use_disk_cache()
    assert disk_cache._used is None and not caplog.text


@pytest.mark.usefixtures("no_cache")
def test_a_user_without_a_home_has_no_cache_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    use_disk_cache()
    use_disk_cache()
    assert disk_cache._used is None and caplog.text.count("there is no home folder; set RECON_CACHE_DIR") == 1


def test_the_command_line_sends_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_API_KEY", "rk_secret")
    with connect("http://127.0.0.1:1") as client:
        assert client._connection.http.headers["Authorization"] == "Bearer rk_secret"
