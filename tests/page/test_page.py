"""The page in a real browser, with a real service: from a file to a picture, and all that may go wrong on the way."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from recon import library
from recon.client.client import Client
from tests.api.test_sessions import Ring
from tests.page.browser import WAIT_MS, violations
from tests.page.conftest import Visiting
from tests.service.serving import Server, job_body, send, serving
from tests.service.whole_service import slow, wait_for
from workers import resumable_uploads

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

HEADING = "main h1"
NO_STORAGE = """
for (const place of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, place, {get() { throw new DOMException("blocked", "SecurityError"); }});
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API without a worker: jobs wait for ever."""
    with serving(tmp_path_factory.mktemp("page") / "store") as found:
        yield found


@pytest.fixture
def client(service: tuple[str, Path]) -> Iterator[Client]:
    with Client(service[0]) as found:
        yield found


def sees(page: Page, text: str | re.Pattern[str], where: str = "main") -> None:
    """Wait until a part of the page shows a text."""
    page.locator(where).get_by_text(text).first.wait_for(timeout=WAIT_MS)


def titled(page: Page, pattern: str) -> None:
    """Wait for the title of the tab; its text is no element, which locators could find."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not re.search(pattern, page.title()):
        assert time.monotonic() < deadline, f"{page.title()!r} is not {pattern!r}"
        page.wait_for_timeout(100)


def accessible(page: Page) -> None:
    found = violations(page)
    assert not found, "\n".join(found)


def choose(page: Page, path: Path) -> None:
    page.locator('input[type=file][aria-label="Files of a scan"]').set_input_files(path)


def test_from_a_file_to_a_picture(visit: Visiting, service: tuple[str, Path], ct_file: Path) -> None:
    page = visit(service[0]).open()
    sees(page, "Drop a scan here")
    accessible(page)
    page.get_by_role("link", name="New").click()
    assert page.locator(HEADING).evaluate("element => element === document.activeElement")
    begun = time.monotonic()
    choose(page, ct_file)
    sees(page, re.compile("of memory"))
    print(f"from the file to the plan: {time.monotonic() - begun:.1f} s")
    assert re.search(r"#/new/[a-z2-7]{26}$", page.url)
    sees(page, re.compile("a volume, whose measurement is simulated"))
    accessible(page)
    page.get_by_role("textbox", name="Views").fill("many")
    sees(page, re.compile("is no number"))
    page.get_by_role("textbox", name="Views").fill("30")
    page.get_by_role("radio", name="FBP").check()
    page.get_by_role("textbox", name="Name").fill("from a file")
    page.reload()  # and nothing is lost
    sees(page, re.compile("of memory"))
    assert page.get_by_role("textbox", name="Views").input_value() == "30"
    assert page.get_by_role("radio", name="FBP").is_checked()
    page.get_by_role("button", name="Reconstruct").click()
    page.locator(".chip", has_text="Succeeded").wait_for(timeout=4 * WAIT_MS)
    ended = time.monotonic()
    titled(page, "^✓ from a file")
    page.locator(".viewer canvas, .viewer img").first.wait_for()
    print(f"from the end to the picture: {time.monotonic() - ended:.1f} s")
    sees(page, "Can it be trusted?")
    accessible(page)
    for tab, text in (("Report", "Network evaluations"), ("Log", "Download the log"), ("Specification", "views: 30")):
        page.get_by_role("tab", name=tab).click()
        sees(page, re.compile(text))
        accessible(page)
    assert page.url.endswith("/specification")
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("tab", name="Log").evaluate("element => element === document.activeElement")
    page.locator(".menu summary").click()
    with page.expect_download() as download:
        page.locator(".menu").get_by_role("link", name="volume.nii.gz", exact=True).click()
    assert download.value.suggested_filename == "from a file-volume.nii.gz"


def test_watched_reloaded_in_two_tabs_and_cancelled(
    visit: Visiting, service: tuple[str, Path], client: Client, ct_file: Path
) -> None:
    job = client.submit(slow(ct_file).model_copy(update={"name": "a long one"}))["id"]
    wait_for(client, job, "running")
    here = visit(service[0])
    page = here.open(f"#/jobs/{job}")
    sees(page, re.compile("Last word"))
    sees(page, "Reading")
    titled(page, r"^\d+ % a long one")
    page.reload()
    titled(page, r"^\d+ % a long one")
    page.locator(".chart").wait_for()
    accessible(page)
    other = here.open()
    other.get_by_role("navigation", name="Jobs").get_by_text("a long one").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".chip", has_text="Cancelled").wait_for()
    other.get_by_text(re.compile("^TV, cancelled")).first.wait_for()  # by the stream that the first tab has
    accessible(page)
    other.get_by_role("searchbox").fill("no such job")
    other.get_by_text(re.compile(r"^0 of \d+ jobs?\.$")).wait_for()


def test_what_failed_is_mended_and_run_again(visit: Visiting, server: Server, ct_file: Path) -> None:
    body = {
        "input": {"upload": send(server.http, ct_file.read_bytes()), "format": "nifti"},
        "acquisition": "ct-parallel",
    }
    wrong = {"name": "diffpir", "prior": "brain-mri"}
    answer = server.http.post("/v1/jobs", json={**body, "method": wrong, "name": "with the wrong prior"})
    job, why = answer.json()["id"], "brain-mri is a prior for MRI"
    error = {"code": "invalid_input", "message": why, "field": "method.prior", "remedy": "choose ct"}
    server.store.transition(job, "failed", token=server.store.transition(job, "running").token, error=error)
    page = visit(server.url).open(f"#/jobs/{job}")
    for text in (f"{why}.", "method.prior", "Choose ct."):
        sees(page, text)
    titled(page, "^✕ with the wrong prior")
    accessible(page)
    page.get_by_role("link", name="Mend and run again").click()
    sees(page, re.compile("of memory"))
    assert page.get_by_role("radio", name="DiffPIR").is_checked()
    assert page.get_by_role("textbox", name="Name").input_value() == "with the wrong prior"
    prior = page.locator('[data-field="method.prior"]')
    prior.get_by_text(why).wait_for()  # the job's own words, where they belong
    accessible(page)
    prior.get_by_role("combobox").select_option("ct")
    prior.get_by_text(why).wait_for(state="detached")
    page.get_by_role("button", name="Reconstruct").click()
    page.locator(".chip", has_text="Queued").wait_for()
    sent = server.http.get(f"/v1/jobs/{page.url.rpartition('/')[2]}/spec").json()
    assert sent["method"] == {"name": "diffpir", "prior": "ct"}
    page.goto(f"{server.url}/#/jobs/{job}")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    sees(page, "Drop a scan here")
    assert server.http.get(f"/v1/jobs/{job}").status_code == 410


def test_a_sample_runs_at_a_click(visit: Visiting, tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        page = visit(server.url, color_scheme="light", reduced_motion="reduce").open()
        sees(page, "No jobs yet")
        accessible(page)
        page.get_by_role("button", name="Brain MRI").click()
        page.locator(".chip", has_text="Queued").wait_for()
        sees(page, "Waits for a worker")  # of which this service has none
        accessible(page)
        assert len(server.http.get("/v1/jobs").json()["jobs"]) == 1


def test_on_a_narrow_screen_jobs_are_behind_a_button(visit: Visiting, server: Server) -> None:
    name = "a job with a name that is far too long for the screen of a telephone"
    job = server.http.post("/v1/jobs", json=job_body(send(server.http), name=name)).json()
    page = visit(server.url).open(f"#/jobs/{job['id']}")
    page.set_viewport_size({"width": 360, "height": 740})
    page.locator(".chip").wait_for()
    jobs = page.get_by_role("navigation", name="Jobs")
    assert not jobs.is_visible()
    page.get_by_role("button", name="Jobs").click()
    jobs.get_by_role("link").first.wait_for()
    accessible(page)
    page.get_by_role("searchbox").press("Escape")
    assert not jobs.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    accessible(page)


def held(page: Page, pieces: list[Route], count: int) -> None:
    """Wait until so many pieces have been asked for."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while len(pieces) < count:
        assert time.monotonic() < deadline, f"only {len(pieces)} pieces were sent"
        page.wait_for_timeout(50)  # which lets routes be told of them


def test_an_upload_outlives_a_broken_line_and_a_closed_page(visit: Visiting, server: Server, tmp_path: Path) -> None:
    scan = tmp_path / "scan.npy"
    np.save(scan, np.random.default_rng(0).random((40, 300, 1200), dtype=np.float32))  # 58 MB
    here = visit(server.url)
    here.expected = ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "net::"]
    page = here.open("#/new")
    page.get_by_role("button", name="Choose a file").wait_for()

    pieces: list[Route] = []

    def hold(route: Route) -> None:  # all pieces but the first, so that there is a middle
        if route.request.method == "PATCH":
            pieces.append(route)
        if route.request.method != "PATCH" or len(pieces) == 1:
            route.continue_()

    page.route("**/v1/uploads/*", hold)
    choose(page, scan)
    sees(page, re.compile(r"MB of 57\.6 MB"))
    held(page, pieces, 2)
    here.context.set_offline(True)
    pieces[1].continue_()
    sees(page, re.compile("the line is broken"))
    here.context.set_offline(False)
    held(page, pieces, 3)
    sees(page, re.compile("loses nothing"))
    page.get_by_role("button", name="Pause").click()
    sees(page, re.compile("paused"))
    accessible(page)
    page.close()
    page = here.open()
    sees(page, "Uploads that are not complete")
    begun = server.http.get("/v1/uploads").json()["uploads"][0]
    assert 0 < begun["received"] < begun["bytes"]
    choose(page, scan)
    sees(page, re.compile("^Recognised: numpy"))
    uploads = server.http.get("/v1/uploads?name=scan.npy").json()["uploads"]
    assert [(one["id"], one["complete"]) for one in uploads] == [(begun["id"], True)]  # gone on with, not begun anew


def test_an_upload_that_broke_behind_its_last_byte_is_completed(
    visit: Visiting, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "whole.npy"
    np.save(scan, np.random.default_rng(2).random((6, 20), dtype=np.float32))
    complete, tries = resumable_uploads.complete, []

    def breaks_once(*given: Any) -> dict[str, Any]:
        tries.append(given)
        if len(tries) == 1:
            raise OSError("the service was stopped here")
        return complete(*given)

    monkeypatch.setattr(resumable_uploads, "complete", breaks_once)
    here = visit(server.url)
    here.expected = ["500"]
    page = here.open("#/new")
    choose(page, scan)
    sees(page, re.compile("^Recognised: numpy"))
    uploads = server.http.get("/v1/uploads?name=whole.npy").json()["uploads"]
    assert [one["complete"] for one in uploads] == [True] and len(tries) == 2
    assert page.evaluate("localStorage.getItem('recon.uploads')") == "{}"


def test_a_name_that_is_typed_while_the_upload_runs_is_kept(visit: Visiting, server: Server, tmp_path: Path) -> None:
    scan = tmp_path / "named.npy"
    np.save(scan, np.random.default_rng(3).random((6, 20), dtype=np.float32))
    page = visit(server.url).open("#/new")
    page.get_by_role("button", name="Choose a file").wait_for()
    named: list[bool] = []
    held: list[Route] = []

    def until_named(route: Route) -> None:
        route.continue_() if named else held.append(route)

    page.route("**/v1/uploads/*", until_named)
    with page.expect_request("**/v1/uploads/*"):
        choose(page, scan)
    sees(page, "Waits for the upload.")
    name = page.get_by_role("textbox", name="Name")
    name.fill("typed early")
    named.append(True)
    held[0].continue_()
    sees(page, re.compile("^Recognised: numpy"))
    assert name.input_value() == "typed early"
    page.reload()
    sees(page, re.compile("^Recognised: numpy"))
    assert name.input_value() == "typed early"


def test_a_name_that_is_typed_before_there_is_a_file_is_kept(visit: Visiting, server: Server, tmp_path: Path) -> None:
    scan = tmp_path / "unnamed.npy"
    np.save(scan, np.random.default_rng(5).random((6, 20), dtype=np.float32))
    page = visit(server.url).open("#/new")
    page.get_by_role("textbox", name="Name").fill("typed first")
    choose(page, scan)
    sees(page, re.compile("^Recognised: numpy"))
    assert page.get_by_role("textbox", name="Name").input_value() == "typed first"


def test_a_form_does_without_storage(visit: Visiting, server: Server, tmp_path: Path) -> None:
    scan = tmp_path / "blocked.npy"
    np.save(scan, np.random.default_rng(4).random((6, 20), dtype=np.float32))
    here = visit(server.url)
    here.context.add_init_script(NO_STORAGE)
    page = here.open("#/new")
    choose(page, scan)
    sees(page, re.compile("^Recognised: numpy"))


def test_a_job_is_followed_again_after_a_gap(visit: Visiting, server: Server) -> None:
    failed, deleted = (server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"] for _ in range(2))
    here = visit(server.url)
    here.expected = ["410"]  # the stream of the deleted job itself may be asked for once more
    # A stream that opens, tells nothing and ends: all that happens does so while nobody listens.
    stream = {"content_type": "text/event-stream", "body": "retry: 300\n\n"}
    here.context.route("**/v1/events", lambda route: route.fulfill(**stream))
    pages = [here.open(f"#/jobs/{job}") for job in (failed, deleted)]
    for page in pages:
        page.locator(".chip", has_text="Queued").wait_for()
    error = {"code": "worker_lost", "message": "its workers were lost", "field": None, "remedy": None}
    server.store.transition(failed, "failed", token=server.store.transition(failed, "running").token, error=error)
    server.http.delete(f"/v1/jobs/{deleted}").raise_for_status()
    server.http.delete(f"/v1/jobs/{deleted}?purge=1").raise_for_status()
    pages[0].locator(".chip", has_text="Lost").wait_for()
    sees(pages[1], "This job was deleted")


def test_a_report_that_lacks_something_takes_nothing_else_away(visit: Visiting, server: Server) -> None:
    job = server.http.post("/v1/jobs", json=job_body(send(server.http), name="an old job")).json()["id"]
    volume = np.full((2, 24, 24), -1000, np.float32)
    volume[:, 6:18, 6:18] = 40
    found = library.reconstruct(library.simulate(volume, "ct-parallel", views=12), method="fbp", progress=False)
    record = server.store.transition(job, "running")
    report = found.save(server.store.output(job)) / "report.json"
    told = json.loads(report.read_text())
    del told["preparation"]  # as before there was one
    del told["data_misfit"]  # which every report has
    report.write_text(json.dumps(told))
    server.store.transition(job, "succeeded", token=record.token, progress=1.0)
    here = visit(server.url)
    here.expected = ["undefined"]
    page = here.open(f"#/jobs/{job}")
    page.locator('.viewer-line[data-row="result"] [data-plane="axial"][data-shown]').wait_for()
    sees(page, re.compile("A part of this job's report cannot be shown"))
    sees(page, "Keep in mind")
    page.get_by_role("tab", name="Report").click()
    sees(page, "Network evaluations")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.npy", b"", "is empty"),
        ("letter.docx", b"PK\x03\x04 dear sir", "letter.docx cannot be read as a scan"),
    ],
)
def test_a_file_of_the_wrong_kind_has_a_sentence_and_a_way_on(
    visit: Visiting, server: Server, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    here = visit(server.url)
    here.expected = ["422"]
    page = here.open("#/new")
    choose(page, tmp_path / name)
    sees(page, re.compile(told, re.I))
    page.get_by_role("button", name=re.compile("Choose (a|another) file")).first.wait_for()
    accessible(page)


def test_a_folder_is_one_upload(visit: Visiting, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "scan with a name of its own"
    folder.mkdir()
    np.save(folder / ("a long name " * 12 + ".npy"), np.random.default_rng(1).random((6, 20), dtype=np.float32))
    (folder / "readme.txt").write_text("measured on a Monday")
    page = visit(server.url).open("#/new")
    page.locator('input[type=file][aria-label="Folder of a scan"]').set_input_files(folder)
    sees(page, re.compile("^Recognised: numpy"))
    made = server.http.get("/v1/uploads?name=scan with").json()["uploads"][0]
    assert (made["files"], made["name"]) == (2, folder.name)


def test_a_key_is_asked_for_once_and_can_be_revoked(visit: Visiting, tmp_path: Path) -> None:
    ring = Ring(tmp_path / "keys.yaml", "anna", "ben")
    with serving(tmp_path / "store", keys=ring.path) as server:
        here = visit(server.url)
        here.expected = ["401"]
        page = here.open()
        key = page.get_by_label("Key", exact=True)
        key.wait_for()
        accessible(page)
        key.fill("rk_wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text(re.compile("Nobody has this key")).wait_for()
        key.fill(ring.secrets["anna"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Key: anna").wait_for()
        sees(page, "Drop a scan here")
        assert ring.secrets["anna"] not in json.dumps(page.evaluate("[{...localStorage}, {...sessionStorage}]"))
        page.reload()
        page.get_by_text("Key: anna").wait_for()
        ring.write("ben")  # anna's is revoked
        page.get_by_role("link", name="New").click()
        page.get_by_role("dialog").wait_for()
        page.get_by_label("Key", exact=True).fill(ring.secrets["ben"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Key: ben").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("dialog").wait_for()
