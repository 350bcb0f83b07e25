"""Audit of a dataset and of a run on it: leakage, duplicates, suspicious labels."""
