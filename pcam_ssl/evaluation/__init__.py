"""Scores and their intervals, from arrays."""
