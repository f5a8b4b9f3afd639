"""Normalisation, expression layers, splits, label noise and random streams."""
