"""Entry point of the command line: collects the commands and maps errors to exit codes, one line per error."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, NoReturn, TextIO

import typer

import recon
from operators.errors import InputError, ReconError, ResourceLimit, StorageFull
from recon.cli.importing import importing
from recon.cli.show import errors
from recon.spec.old_names import OldName
from recon.waiting import wait_briefly

wait_briefly()

COMMANDS = "recon.commands"
"""Group of entry points that are called with the application and add their commands to it. The packages
above `recon` bring theirs this way, so that nothing here imports them; so can yours."""

_PATHS = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""Errors of the operating system about a path that a user has given."""

app = typer.Typer(
    name="recon",
    help="Reconstruct CT and MRI scans with diffusion priors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recon {recon.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reconstruct CT and MRI scans with diffusion priors."""


with importing():
    for entry in sorted(entry_points(group=COMMANDS), key=lambda e: e.name):
        entry.load()(app)


def _print_old_names() -> None:
    """Print warnings about old names in a specification as one line each, without the place in our code."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, OldName):
            errors.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def _end(error: ReconError) -> NoReturn:
    errors.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(error.exit_code)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input, 3 unavailable, 4 cancelled, 5 diverged, 1 other."""
    _print_old_names()
    report_errors(app)


def report_errors(command: Callable[[], object]) -> None:
    """Run `command` and end the process with one line and an exit code for any error it raises."""
    try:
        command()
    except ReconError as error:
        _end(error)
    except OSError as error:
        full = StorageFull.of(error)
        if full is not None:
            _end(full)
        if error.errno not in _PATHS or error.filename is None:
            raise
        remedy = "check that the path exists, lies in folders, and may be read or written"
        _end(InputError(f"{error.filename}: {error.strerror}", field="path", remedy=remedy))
    except MemoryError:
        remedy = "give fewer slices; `recon plan` says what a job needs"
        _end(ResourceLimit("it takes more memory than there is", field="memory", remedy=remedy))
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
