"""One API server: how to reach it, list and watch it, what its objects are, how to apply to it."""
