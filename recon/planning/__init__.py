"""The cost of a job before it runs: memory, network evaluations, seconds. Light."""
