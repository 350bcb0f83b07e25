"""Scores against the number of labels: budgets drawn, trained, and a power law fitted."""
