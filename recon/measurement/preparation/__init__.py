"""Preparation of measured CT data: one file per step, in the order of `prepare`."""
