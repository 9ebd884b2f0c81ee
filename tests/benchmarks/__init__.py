"""The benchmarks behind the documents, run by `make benchmarks` or `python -m tests.benchmarks`."""
