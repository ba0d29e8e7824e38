"""How packets reach a proxy: redirect rules as values."""
