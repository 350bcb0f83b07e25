"""Comparisons of runs on the same patches."""
