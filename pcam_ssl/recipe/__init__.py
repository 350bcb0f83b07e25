"""Recipes: the keys, and how they are read."""
