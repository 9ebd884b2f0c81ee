"""Solvers: each is a generator of `Progress` that returns the volume. One module a method."""
