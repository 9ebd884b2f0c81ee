"""HTTP API. It stores, enqueues and serves files, and never imports torch or ASTRA."""
