"""Files on disk: atomic writes, locks, free space, and the Redis binary."""
