"""A real browser for tests and pictures of the page: what it asks for, what it complains of, what axe-core finds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

AXE = Path(__file__).parent / "axe" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
# Browsers have errands of their own, root gets no sandbox, and WebGL2 without a graphics card has to be asked for.
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
]
WAIT_MS = 60_000
"""Longest wait for what a page shows: the processors are shared by a browser, a service and its worker."""


def required() -> bool:
    """Whether a missing browser is a failure."""
    return os.environ.get("RECON_BROWSER") == "required"


def lacking() -> str | None:
    """What is missing for tests in a browser; None if there is all."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright"
    if executable() is None:
        return f"there is none of {', '.join(NAMES)}: apt-get install chromium"
    return None


@cache
def executable() -> str | None:
    """Place of an installed browser of the family of Chromium."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser(*more: str) -> Iterator[Browser]:
    """Run a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable(), args=[*QUIET, *more])
        try:
            yield found
        finally:
            found.close()


class Visit:
    """Tabs of one browser profile on a service, and all that they asked for and complained of.

    Parameters
    ----------
    context
        The profile.
    url
        Address of the service.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """Parts of complaints that a test provokes: browsers complain of every answer that is an error."""
        context.set_default_timeout(WAIT_MS)
        context.on("request", lambda request: self._asked(request.url))
        context.on("console", lambda message: self._said(message.type, message.text, message.location.get("url", "")))
        context.on("weberror", lambda error: self.complaints.append(f"{error.error}"))

    def _asked(self, url: str) -> None:
        place = urlsplit(url)
        if place.scheme in ("http", "https", "ws", "wss") and place.hostname != "127.0.0.1":
            self.foreign.append(url)

    def _said(self, kind: str, text: str, where: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{text} ({where})")

    def open(self, path: str = "") -> Page:
        """Open a tab."""
        page = self.context.new_page()
        page.goto(f"{self.url}/{path}")
        return page

    def check(self) -> None:
        """Nothing left this machine, and the browser had nothing to complain of but what was expected."""
        assert not self.foreign, self.foreign
        left = [c for c in self.complaints if not any(part in c for part in self.expected)]
        assert not left, left


def violations(page: Page) -> list[str]:
    """Rules of axe-core that a page breaks: WCAG 2.2 A and AA, and best practice."""
    page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found: list[dict[str, Any]] = page.evaluate(
        "async (tags) => (await axe.run(document, {runOnly: tags})).violations", tags
    )
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]
