"""Browser of the user who starts a server: shown the address, where there is a screen."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser

from recon.cli.show import console, errors


def show(address: str, *, wanted: bool) -> None:
    """Print an address, and open it in the browser if that is wanted and there is a screen."""
    console.print(f"serving at {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    if wanted and sys.stdout.isatty() and has_screen():
        # In a thread: some browsers return only when they are closed.
        threading.Thread(target=_open, args=(address,), name="browser", daemon=True).start()


def has_screen() -> bool:
    """Whether a browser would have a window; else Python takes one that fills the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(address: str) -> None:
    if not webbrowser.open(address):
        errors.print("no browser was found; open the address in one", highlight=False)
