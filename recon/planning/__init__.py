"""Planning: memory, network evaluations and seconds of a job before it runs. Light."""
