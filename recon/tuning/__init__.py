"""Searches for settings and starting noise, offline. Nothing of the job path imports it."""
