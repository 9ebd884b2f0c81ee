"""Command line ``recon``."""
