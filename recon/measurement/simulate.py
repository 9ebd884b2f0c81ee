"""Simulation: retrospective undersampling of a known volume, to test a method on one's own data.

Where the operator that makes the data also reconstructs it, results are better than on measured data (an "inverse
crime"); the report of a job says how its data were simulated.
"""

from __future__ import annotations

from dataclasses import replace

from recon.measurement.measurement import Measurement
from recon.spec.acquisitions import Acquisition
from recon.spec.acquisitions.base import Volume
from recon.spec.affine import Affine
from recon.spec.registry import resolve
from recon.spec.simulation import Simulation

SAME_OPERATOR = "simulated from a known volume with the operator that reconstructs it: expect less from measured data"


def simulate(
    volume: Volume, affine: Affine, acquisition: Acquisition, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Simulate the measurement of a volume by an acquisition.

    Parameters
    ----------
    volume, affine
        The object ``(slices, rows, cols)``, CT in HU, MRI in any magnitude, and its place in the patient.
    acquisition
        Acquisition to simulate; missing sizes are taken from the volume.
    settings
        Noise, sampling and seed.
    first_slice
        Number of the first slice in the volume that this one is a part of.

    Returns
    -------
    Measurement
        With `truth` set, in HU or in the magnitude's unit, and a note on how it was simulated.
    """
    physics = resolve(f"{acquisition.PHYSICS}:simulate")
    found: Measurement = physics(volume, affine, acquisition, settings, first_slice)
    return found if found.notes else replace(found, notes=[SAME_OPERATOR])
