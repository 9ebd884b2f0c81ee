"""The HTTP API. Never imports torch or ASTRA: it stores, enqueues and serves files."""
