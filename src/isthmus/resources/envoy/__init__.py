"""Slices of a view said in Envoy's language; stock Envoy, without anybody's own filters."""
