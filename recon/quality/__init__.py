"""Judging a result: metrics against a known truth, the report, pictures in three planes."""
