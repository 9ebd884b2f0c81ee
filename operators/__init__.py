"""What the scanner does: linear forward models with exact adjoints. Knows nothing of jobs or networks."""
