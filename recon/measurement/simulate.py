"""Simulation: retrospective undersampling of a known volume, to test a method on one's own data.

The projector that makes the data also reconstructs it, so results are better than on measured data (an
"inverse crime"); the report of such a job says that it was simulated.
"""

from __future__ import annotations

from recon.measurement.measurement import Measurement
from recon.spec.acquisitions import Acquisition
from recon.spec.acquisitions.base import Volume
from recon.spec.affine import Affine
from recon.spec.registry import resolve
from recon.spec.simulation import Simulation


def simulate(volume: Volume, affine: Affine, acquisition: Acquisition, settings: Simulation) -> Measurement:
    """Simulate the measurement of a volume by an acquisition.

    Parameters
    ----------
    volume, affine
        The object ``(slices, rows, cols)``, CT in HU, MRI in any magnitude, and its place in the patient.
    acquisition
        Acquisition to simulate; missing sizes are taken from the volume.
    settings
        Noise, sampling and seed.

    Returns
    -------
    Measurement
        With `truth` set, in HU or in the magnitude's unit.
    """
    found: Measurement = resolve(f"{acquisition.PHYSICS}:simulate")(volume, affine, acquisition, settings)
    return found
