"""The set of clusters: which there are, one generation of informers for each, their objects as sources."""
