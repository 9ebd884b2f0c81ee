"""File formats, one module per format: read measurements and write results. Headers are checked first."""
