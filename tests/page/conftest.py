"""A browser for the tests of the page, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.page import browser as browsers
from tests.page.browser import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser of one file of tests: while Playwright runs, its loop counts as this thread's, and nothing else in the
    thread can run one."""
    reason = browsers.lacking()
    if reason is not None:
        if browsers.required():
            pytest.fail(reason)
        pytest.skip(reason)
    with browsers.browser() as found:
        yield found


class Visiting(Protocol):
    """Begins a visit with a profile of its own."""

    def __call__(self, url: str, **more: Any) -> Visit: ...


@contextmanager
def _visit(chromium: Browser, url: str, **more: Any) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, **more)
    found = Visit(context, url)
    try:
        yield found
        found.check()
    finally:
        context.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visiting]:
    """Visits whose tabs are closed at the end; each asked nothing of other machines, and had no error."""
    with ExitStack() as stack:
        yield lambda url, **more: stack.enter_context(_visit(chromium, url, **more))
