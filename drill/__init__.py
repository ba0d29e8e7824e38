"""Faults in the life of clusters, under load, with every request and every endpoint counted."""
