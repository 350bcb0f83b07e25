"""Folds of runs as units of work, for many machines: planned into a file, run one by one, and launched here, on SLURM or on Ray."""
