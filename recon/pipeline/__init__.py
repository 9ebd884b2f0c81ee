"""Pipeline of every job: prepare, solve in chunks, judge, publish."""
