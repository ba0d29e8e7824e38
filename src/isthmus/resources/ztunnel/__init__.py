"""Slices said in the language of node proxies."""
