"""Faults in a mesh without sidecars, one after the other, under load."""
