"""Whole slides: read, find tissue, label from annotations, cut into a dataset of patches."""
