"""Blends of runs."""
