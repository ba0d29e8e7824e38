"""Google's clusters and networks made ready for one mesh: what is missing, and nothing wider."""
