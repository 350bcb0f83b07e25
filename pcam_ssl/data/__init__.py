"""Patches on disk: import, storage, statistics, folds, views, batches."""
