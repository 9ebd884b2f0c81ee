"""Solvers, one module per method: each is a generator of `Progress` that returns the volume."""
