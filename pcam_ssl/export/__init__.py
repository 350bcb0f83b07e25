"""Exporting networks and embeddings to other programs."""
