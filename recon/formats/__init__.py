"""Reading measurements and writing results; one module a format. Headers are checked before anything is read."""
