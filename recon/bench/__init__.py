"""Benchmarks: what README and docs quote is printed by these."""
