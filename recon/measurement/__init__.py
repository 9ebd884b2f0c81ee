"""Measurements: data, geometry, noise estimate and simulation."""
