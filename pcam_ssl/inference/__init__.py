"""From networks to Predictions, and from Predictions to scores."""
