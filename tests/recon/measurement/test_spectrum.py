"""Spectra: half-value layers as published, and a correction that undoes hardening by water."""

from __future__ import annotations

import pytest
import torch

from recon.measurement.spectrum import SPECTRA, Spectrum, bone_fraction


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
