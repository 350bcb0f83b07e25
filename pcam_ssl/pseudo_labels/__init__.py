"""Pseudo-label rounds: teacher, selection, rounds, verdict."""
