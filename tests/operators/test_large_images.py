"""Memory of operators on images of many thousand pixels a side."""

from __future__ import annotations

import subprocess
import sys


def test_back_projection_into_a_large_image_takes_little_more_memory_than_the_image() -> None:
    """A row of 4000 elements is an image of 64 MB; whole arrays of places and shares would be ten times that."""
    code = """if True:
        import torch
        from operators.fbp import filtered_back_projection
        from operators.geometry import ParallelBeam
        geometry = ParallelBeam(4000, 4000, 1.0, (0.0, 1.0, 2.0), 4000, 1.0)
        from recon.pipeline import peak
        before = peak.resident_bytes()
        image = filtered_back_projection(torch.ones(1, 3, 4000), geometry)
        assert image.shape == (1, 4000, 4000) and float(image.max()) > 0
        print(peak.resident_bytes() - before)
    """
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 64e6 < grown < 2 * 64e6
