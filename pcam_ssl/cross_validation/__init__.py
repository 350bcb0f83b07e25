"""Folds as units of work."""
