"""The HTTP client, and batches."""
