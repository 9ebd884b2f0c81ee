"""X-ray spectra, and how water and bone attenuate them: simulation with beam hardening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.spec.simulation import TubeVoltage

REFERENCE_KEV = 60.0
"""Photon energy in keV at which HU are those of the object."""
WATER_CM2_G, BONE_CM2_G = 0.2059, 0.3102
"""Mass attenuation of water and cortical bone at that energy in cm^2/g."""
SPECTRA: dict[TubeVoltage, tuple[tuple[float, float, float, float], ...]] = {
    80: (
        (27.0, 0.0701, 0.4434, 1.6841), (35.4, 0.2393, 0.3035, 0.8515), (44.9, 0.2734, 0.2440, 0.5074),
        (55.0, 0.2325, 0.2149, 0.3535), (64.6, 0.1391, 0.1992, 0.2808), (73.4, 0.0456, 0.1894, 0.2419),
    ),
    100: (
        (27.1, 0.0454, 0.4406, 1.6677), (35.5, 0.1705, 0.3026, 0.8458), (45.0, 0.2132, 0.2436, 0.5052),
        (55.7, 0.2422, 0.2135, 0.3465), (65.0, 0.1605, 0.1987, 0.2786), (74.7, 0.0920, 0.1882, 0.2375),
        (84.5, 0.0564, 0.1803, 0.2114), (93.4, 0.0197, 0.1745, 0.1952),
    ),
    120: (
        (27.2, 0.0327, 0.4379, 1.6516), (35.5, 0.1329, 0.3026, 0.8458), (45.0, 0.1769, 0.2436, 0.5052),
        (56.1, 0.2439, 0.2127, 0.3427), (65.2, 0.1597, 0.1985, 0.2775), (74.8, 0.0926, 0.1881, 0.2372),
        (84.7, 0.0711, 0.1801, 0.2110), (94.7, 0.0501, 0.1737, 0.1932), (104.4, 0.0300, 0.1684, 0.1808),
        (113.4, 0.0101, 0.1642, 0.1720),
    ),
    140: (
        (27.2, 0.0251, 0.4379, 1.6516), (35.6, 0.1095, 0.3016, 0.8402), (45.1, 0.1535, 0.2432, 0.5030),
        (56.4, 0.2415, 0.2122, 0.3399), (65.3, 0.1557, 0.1983, 0.2770), (74.9, 0.0873, 0.1880, 0.2369),
        (84.8, 0.0725, 0.1800, 0.2108), (94.8, 0.0575, 0.1736, 0.1931), (104.7, 0.0433, 0.1683, 0.1805),
        (114.7, 0.0303, 0.1636, 0.1708), (124.4, 0.0179, 0.1596, 0.1634), (133.4, 0.0059, 0.1562, 0.1578),
    ),
}  # fmt: skip
"""Rows of mean energy in keV, fraction of the photons, mass attenuation of water and of cortical bone in cm^2/g, by
tube voltage in kV. Spectra of a tungsten anode at 12 degrees behind 6 mm of aluminium, from SpekPy 2.5.4 (Poludniowski
et al. 2021, Med. Phys. 48, 3630) in steps of 10 keV; attenuation from xraylib 4.3.0 (Schoonjans et al. 2011,
Spectrochim. Acta B 66, 776; bone as in ICRP 23)."""
SOFT_HU, BONE_HU = 100.0, 1500.0
"""HU up to which all is taken for water of another density, and from which all is taken for bone."""
THICKEST = 60.0
"""Largest line integral of water for which data are corrected."""


@dataclass(frozen=True)
class Spectrum:
    """Spectrum as an energy-integrating detector weighs it.

    Parameters
    ----------
    weights
        Fraction of the signal in air at each energy.
    water, bone
        Attenuation at each energy over that at `REFERENCE_KEV`.
    """

    weights: Tensor
    water: Tensor
    bone: Tensor

    @classmethod
    def of_tube(cls, voltage_kv: TubeVoltage) -> Spectrum:
        """Take the spectrum of a tube voltage."""
        energy, photons, water, bone = torch.tensor(SPECTRA[voltage_kv], dtype=torch.float64).T
        signal = photons * energy
        return cls(signal / signal.sum(), water / WATER_CM2_G, bone / BONE_CM2_G)

    def transmission(self, water: Tensor, bone: Tensor) -> Tensor:
        """Transmitted fraction of the signal, from line integrals of water and bone at the reference energy."""
        parts = zip(self.weights.tolist(), self.water.tolist(), self.bone.tolist(), strict=True)
        return torch.stack([w * torch.exp(-a * water - b * bone) for w, a, b in parts]).sum(0)

    def corrected(self, integrals: Tensor) -> Tensor:
        """Correct line integrals for the hardening by water, so that water has that of the reference energy.

        References
        ----------
        Herman 1979, Phys. Med. Biol. 24, 81-106.
        """
        thickness = torch.arange(-2.0, THICKEST, 0.01, dtype=torch.float64)
        measured = -torch.log(self.transmission(thickness, torch.zeros_like(thickness)))
        return torch.from_numpy(np.interp(integrals.numpy(), measured.numpy(), thickness.numpy()))


def bone_fraction(hu: Tensor) -> Tensor:
    """Fraction of the attenuation at the reference energy that is bone's, by HU.

    References
    ----------
    Zhang and Yu 2018, IEEE Trans. Med. Imaging 37, 1370-1381 (soft thresholds between water and bone).
    """
    return ((hu - SOFT_HU) / (BONE_HU - SOFT_HU)).clamp(0.0, 1.0)
