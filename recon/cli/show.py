"""Terminal output: progress bars and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from recon.spec.report import Report

if TYPE_CHECKING:
    from recon.pipeline.prepare import JobProgress

PIPE_WIDTH = 160
"""Width in columns when the output is no terminal: tables in logs should not wrap at 80."""

console = Console()
errors = Console(stderr=True)
for stream in (console, errors):
    if not stream.is_terminal:
        stream.width = PIPE_WIDTH


def bar() -> Progress:
    """Make a progress display; on a pipe it stays silent and only results are printed."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=errors,
        disable=not errors.is_terminal,
    )


def on_bar(progress: Progress, label: str) -> Callable[[JobProgress], None] | None:
    """Make a callback that shows a job on a bar; None if the bar is silent: the misfit takes a projection per step."""
    if progress.disable:
        return None
    task = progress.add_task(label, total=1.0, detail="")
    return lambda p: progress.update(task, completed=p.fraction, detail=detail(p.stage, p.step, p.steps, p.data_misfit))


def detail(stage: str, step: int, steps: int, misfit: float | None) -> str:
    """Format the short text beside a bar."""
    text = stage + (f" {step}/{steps}" if steps else "")
    return text + (f"  misfit {misfit:.4f}" if misfit is not None else "")


def summary(report: Report) -> str:
    """Summarise a report in one line: misfit, and PSNR where a truth is known."""
    text = f"misfit {report.misfit:.4f}"
    if report.expected_misfit is not None:
        text += f" (noise {report.expected_misfit:.4f})"
    if report.against_truth:
        values = ", ".join(f"{name} {scores.psnr}" for name, scores in report.against_truth.items())
        text += f", PSNR in dB: {values}"
    return text


def duration(seconds: float) -> str:
    """Format seconds in words, as ``4 min 38 s`` or ``14 h 35 min``."""
    whole = round(seconds)
    if seconds < 1:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return " ".join(text for text in (f"{hours} h" * (hours > 0), f"{minutes} min" * (minutes > 0)) if text)


def table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """Print a table; the first column is left-aligned."""
    if title is not None:  # above the table and not in it, where it would wrap at the width of a narrow one
        console.print(title, style="italic", highlight=False)
    shown = Table()
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
