"""A run folder, and what a finished run holds."""
