"""Incremental collections: source, derive, index, join, single, transaction, explain. Knows no Kubernetes and no Envoy."""
