"""Recipes: their keys, and reading and writing them."""
