"""Benchmarks, which print the figures that README and docs quote."""
