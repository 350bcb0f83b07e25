"""Patches on disk: import, store, statistics, folds, views, batches."""
