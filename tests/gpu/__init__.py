"""Checks of every CUDA path, for a machine that has a GPU."""
