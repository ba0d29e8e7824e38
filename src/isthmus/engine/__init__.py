"""Incremental collections: source, derive, sight, product, index, join, single, transaction, explain. Knows no Kubernetes and no Envoy."""
