"""Tuning: offline searches for default settings and starting noise. Nothing of the job path imports it."""
