"""Reference pages by the name of their file in ``docs/reference``."""

from __future__ import annotations

from collections.abc import Callable

from tools.documents import interfaces, specification

NOTICE = "<!-- Made from the code by `python -m tools.documents`: change the docstrings there, not this page. -->\n\n"


def _noted(made: Callable[[], str]) -> Callable[[], str]:
    return lambda: NOTICE + made()


PAGES = {
    name: _noted(made)
    for name, made in {
        "specification.md": specification.specification,
        "formats.md": specification.formats,
        "report.md": specification.report,
        "command-line.md": interfaces.command_line,
        "http-api.md": interfaces.http_api,
        "python.md": interfaces.python,
        "errors.md": interfaces.errors,
        "environment.md": interfaces.environment,
    }.items()
}
"""Functions that make the pages."""
