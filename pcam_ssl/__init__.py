"""Leak-free training and evaluation for histopathology patches."""

__version__ = "0.1.0"
