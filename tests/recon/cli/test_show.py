"""What the command line prints: durations in words, and tables whose title stays on a line of its own."""

from __future__ import annotations

import pytest

from recon.cli import show


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "under 1 s"), (59.4, "59 s"), (60, "1 min"), (278, "4 min 38 s"), (599.6, "10 min"), (3570, "1 h"),
        (3599.7, "1 h"), (7170, "2 h"), (7260, "2 h 1 min"), (52498, "14 h 35 min"),
    ],
)  # fmt: skip
def test_durations_are_in_words(seconds: float, told: str) -> None:
    assert show.duration(seconds) == told


def test_the_title_of_a_narrow_table_does_not_wrap() -> None:
    title = "red-diff, 512 x 512 x 512 voxels, in the memory of a machine that is not here"
    with show.console.capture() as found:
        show.table(["memory", "GB"], [["volumes", "1.61"]], title)
    first, *rest = found.get().splitlines()
    assert first == title and any("volumes" in line and "1.61" in line for line in rest)
