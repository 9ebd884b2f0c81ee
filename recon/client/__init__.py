"""HTTP client of a reconstruction server, and batches of jobs."""
