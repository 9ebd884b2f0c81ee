"""Spectra: half-value layers within published bounds, and a correction that undoes hardening by water."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.measurement.spectrum import SPECTRA, Spectrum, bone_fraction
from recon.spec.simulation import TubeVoltage

ALUMINIUM = {20: 3.441, 30: 1.128, 40: 0.5685, 50: 0.3681, 60: 0.2778, 80: 0.2018, 100: 0.1704, 150: 0.1378}
AIR = {20: 0.5389, 30: 0.1537, 40: 0.06833, 50: 0.04098, 60: 0.03041, 80: 0.02407, 100: 0.02325, 150: 0.02496}
"""Mass attenuation of aluminium and mass energy absorption of air in cm^2/g, by energy in keV: Hubbell and Seltzer,
NISTIR 5632 (1995)."""
ALUMINIUM_G_CM3 = 2.699


def at(energy_kev: np.ndarray, table: dict[int, float]) -> np.ndarray:
    logarithm = np.interp(np.log(energy_kev), np.log(list(table)), np.log(list(table.values())))
    return np.asarray(np.exp(logarithm))


@pytest.mark.parametrize(("voltage", "least_mm", "most_mm"), [(100, 3.6, 6.9), (120, 4.3, 8.4), (140, 5.0, 10.1)])
def test_half_value_layers_are_those_of_computed_tomography(
    voltage: TubeVoltage, least_mm: float, most_mm: float
) -> None:
    """Aluminium that halves the air kerma: above the least that IEC 60601-1-3:2008 (table 3) allows for a tube of this
    voltage, below that of the qualities RQT 8 to 10 of IEC 61267:2005, which copper filters too (RQT 10 at 150 kV)."""
    energy, photons, *_ = np.array(list(SPECTRA[voltage])).T
    kerma = photons * energy * at(energy, AIR)
    thickness_mm = np.linspace(0, 20, 20_001)
    through = np.exp(-np.outer(thickness_mm / 10 * ALUMINIUM_G_CM3, at(energy, ALUMINIUM))) @ kerma / kerma.sum()
    half_mm = float(np.interp(0.5, through[::-1], thickness_mm[::-1]))
    assert least_mm < half_mm < most_mm


@pytest.mark.parametrize("voltage", SPECTRA)
def test_water_is_corrected_and_bone_is_not(voltage: int) -> None:
    spectrum = Spectrum.of_tube(voltage)  # type: ignore[arg-type]
    thickness = torch.linspace(0, 10, 50, dtype=torch.float64)
    nothing = torch.zeros_like(thickness)
    measured = -torch.log(spectrum.transmission(thickness, nothing))
    assert bool((torch.diff(measured, 2) < 0).all())  # ever harder
    assert torch.allclose(spectrum.corrected(measured), thickness, atol=1e-4)
    bone = spectrum.corrected(-torch.log(spectrum.transmission(nothing, thickness)))
    assert bool((bone[1:] / thickness[1:]).diff().lt(0).all())


def test_higher_voltages_penetrate_further() -> None:
    five = torch.tensor([5.0], dtype=torch.float64)
    through = [float(Spectrum.of_tube(kv).transmission(five, 0 * five)) for kv in SPECTRA]
    assert through == sorted(through)
    for rows in SPECTRA.values():
        assert sum(photons for _, photons, _, _ in rows) == pytest.approx(1.0, abs=2e-4)


def test_bone_is_told_by_its_hu() -> None:
    assert bone_fraction(torch.tensor([-1000.0, 100.0, 800.0, 1500.0, 3000.0])).tolist() == [0, 0, 0.5, 1, 1]
