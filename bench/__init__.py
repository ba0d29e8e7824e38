"""Measurements: how fast the product is on this machine, in figures that can be compared."""
