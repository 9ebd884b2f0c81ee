"""What was measured: data, geometry, noise and simulation."""
