"""Reports of finished runs: the page, the model card, and the summary in the terminal."""
