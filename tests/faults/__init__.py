"""Fault and load scenarios of a whole deployment, run by `make test-faults`."""
