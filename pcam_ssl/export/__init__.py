"""Networks and embeddings for other programs."""
