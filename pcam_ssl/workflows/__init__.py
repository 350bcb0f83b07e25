"""Folds as units of work, one page a command."""
