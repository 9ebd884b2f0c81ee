"""Quality of a result: metrics against a known truth, and pictures in three planes."""
