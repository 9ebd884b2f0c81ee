"""Hooks of the site's builder: formulas become MathML, and no page may ask for anything from elsewhere."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)
FOREIGN = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//[^"]*|<link[^>]*stylesheet[^>]*href="(?:https?:)?//[^"]*'
)


def on_config(config: Any) -> Any:
    """Add the gallery, whose pages are made from the examples, to the navigation."""
    gallery = Path(config["docs_dir"]) / "gallery"
    pages = sorted(path.relative_to(config["docs_dir"]).as_posix() for path in gallery.glob("*.md"))
    if pages:
        pages.sort(key=lambda page: not page.endswith("index.md"))
        after = next(i for i, section in enumerate(config["nav"]) if "Tutorials" in section) + 1
        config["nav"].insert(after, {"Gallery": pages})
    return config


def on_page_content(html: str, **_: Any) -> str:
    """Convert formulas, which pymdownx.arithmatex has marked, to MathML."""

    def formula(found: re.Match[str]) -> str:
        tag, bracket, text = found.groups()
        shown = convert(unescape(text), display="inline" if bracket == "(" else "block")
        if "\\" in shown:
            raise PluginError(f"a formula has a command that is not known: {text.strip()}")
        return f"<{tag}>{shown}</{tag}>"

    return FORMULA.sub(formula, html)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that would load something from another server: the site is read without a network."""
    found = FOREIGN.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads {found.group()}")
    return output
