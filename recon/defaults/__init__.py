"""Tuned settings, looked up by method, acquisition and undersampling."""
