"""Waiting of the numeric libraries' threads for each other, on machines whose cores others use too."""

from __future__ import annotations

import os

SPINS = "3000"
"""Turns of a loop that a thread waits busily before it sleeps. OpenMP's own number is hundreds of thousands, with which
a draft takes 2.4 times as long on a busy machine, and no less on a quiet one; with none, TV takes 1.3 times as long."""


def wait_briefly() -> None:
    """Let threads that wait sleep soon, unless the environment says how they wait; call it before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
