"""The command line ``recon``."""
