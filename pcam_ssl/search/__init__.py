"""Neighbours of patches in a gallery."""
