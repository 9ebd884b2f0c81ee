"""Specification of a job: acquisition, method settings, output. Light: imports pydantic only."""
