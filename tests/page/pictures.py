"""Pictures of every state of the page, from a real service: python -m tests.page.pictures --out docs/page."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.cli.demo_server import server
from recon.client.client import Client
from recon.samples import SAMPLES
from recon.samples.shipped import SHIPPED
from recon.spec.job import JobSpec
from tests.page import browser as browsers
from tests.service.serving import serving
from tests.service.whole_service import wait_for
from workers import keys

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE: Any = {"width": 1440, "height": 900}
NARROW: Any = {"width": 420, "height": 860}
LOOKS: dict[str, dict[str, Any]] = {"": {}, "-light": {"color_scheme": "light"}, "-narrow": {"viewport": NARROW}}
MINUTES_MS = 900_000


def main() -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder for the pictures.")
    parser.add_argument("--store", type=Path, help="Store of a service, whose results are used; else a new one.")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    with browsers.browser() as browser, tempfile.TemporaryDirectory() as folder:
        _key(browser, Path(folder) / "keyed", out)
        _empty(browser, Path(folder) / "empty", out)
        with server(given.store or Path(folder) / "store") as url, Client(url) as client:
            _states(browser, url, client, out)


def _empty(browser: Browser, folder: Path, out: Path) -> None:
    with serving(folder) as found, _tab(browser, found.url) as page:
        page.get_by_text("No jobs yet").wait_for()
        page.locator(".sample img").last.wait_for()
        page.wait_for_timeout(1000)  # until it is drawn
        _keep(page, out / "empty.png")


def _states(browser: Browser, url: str, client: Client, out: Path) -> None:
    upload = client.upload(SHIPPED["body-ct"].path)
    wrong = {"name": "diffpir", "prior": "brain-mri"}
    failed = _here(client, "failed") or client.submit(_spec(upload, "Body CT, wrong prior", method=wrong))["id"]
    wait_for(client, failed, "failed", seconds=MINUTES_MS / 1000)
    with _tab(browser, f"{url}/#/new/{client.upload(SAMPLES / 'ct_tooth.h5')}") as page:
        page.get_by_text(re.compile("^Waits for detector pitch")).wait_for()
        _keep(page, out / "new-asks.png")
    for name, more in LOOKS.items():
        with _tab(browser, f"{url}/#/new/{upload}", **more) as page:
            page.get_by_text("of memory").wait_for()
            _keep(page, out / f"new{name}.png", whole="narrow" in name)
    with _tab(browser, f"{url}/") as page:
        if before := _here(client, "running") or _here(client, "queued"):
            page.goto(f"{url}/#/jobs/{before}")
        else:
            page.get_by_role("button", name="Body CT").click()
        page.locator(".chart .curve.now").wait_for(timeout=MINUTES_MS)
        page.get_by_text(re.compile(r"^[3-9]\d %, ")).wait_for(timeout=MINUTES_MS)
        page.locator("figure.black img").wait_for(timeout=MINUTES_MS)
        _keep(page, out / "running.png")
        page.set_viewport_size(NARROW)
        _keep(page, out / "running-narrow.png", whole=True)
        running = page.url.rpartition("/")[2]
    cancelled = client.submit(_spec(upload, "Body CT, never begun", method="sirt"))["id"]
    with _tab(browser, f"{url}/#/jobs/{cancelled}") as page:
        page.locator(".chip", has_text="Queued").wait_for()
        _keep(page, out / "queued.png")
    client.cancel(cancelled)
    job = _here(client, "succeeded")
    if job is None:
        job = running
        wait_for(client, job, "succeeded", seconds=MINUTES_MS / 1000)
    else:
        client.cancel(running)
    for name, more in LOOKS.items():
        with _tab(browser, f"{url}/#/jobs/{job}", **more) as page:
            page.get_by_text("Can it be trusted?").wait_for()
            page.locator(".viewer canvas, .viewer img").first.wait_for()
            page.wait_for_timeout(5000)  # pictures of slices have no event
            _keep(page, out / f"done{name}.png", whole=True)
    with _tab(browser, f"{url}/#/jobs/{job}/report") as page:
        page.get_by_text("Network evaluations").wait_for()
        page.wait_for_timeout(1000)
        _keep(page, out / "report.png")
    for name, which in {"failed": failed, "cancelled": cancelled}.items():
        with _tab(browser, f"{url}/#/jobs/{which}") as page:
            page.locator(".chip", has_text=name.title()).wait_for()
            _keep(page, out / f"{name}.png")


def _key(browser: Browser, folder: Path, out: Path) -> None:
    folder.mkdir()
    (folder / "keys").write_text(f"- {keys.entry(keys.make('anna')[1])}\n")
    with serving(folder / "store", keys=folder / "keys") as found, _tab(browser, found.url) as page:
        page.get_by_role("dialog").wait_for()
        _keep(page, out / "key.png")


def _here(client: Client, state: str) -> str | None:
    """A job of the body CT in a state, which a store from before may have."""
    return next((job["id"] for job in client.jobs(state=state) if job["name"].startswith("Body CT")), None)


def _spec(upload: str, name: str, **more: Any) -> JobSpec:
    return JobSpec.parse({**SHIPPED["body-ct"].specification(upload), "name": name, **more})


@contextmanager
def _tab(browser: Browser, url: str, **more: Any) -> Iterator[Page]:
    context = browser.new_context(**{"viewport": WIDE, "color_scheme": "dark", **more})
    context.set_default_timeout(browsers.WAIT_MS)
    page = context.new_page()
    page.goto(url)
    try:
        yield page
    finally:
        context.close()


def _keep(page: Page, path: Path, *, whole: bool = False) -> None:
    page.screenshot(path=path, full_page=whole)
    print(f"{path}: {path.stat().st_size // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
