"""Nearest neighbours in arrays of embeddings."""
