"""A small Kubernetes API server for laptops and tests: storage, discovery, patches, CRDs, HTTP."""
