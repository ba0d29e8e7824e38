"""Incremental collections: source, derive, product, index, join, single, transaction, explain. Knows no Kubernetes and no Envoy."""
