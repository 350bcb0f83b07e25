"""Explain predictions: Grad-CAM, and how much the centre of the patch matters."""
