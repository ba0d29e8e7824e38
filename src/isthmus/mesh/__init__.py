"""The words of the mesh as frozen values: identities, services, workloads, networks, localities, policies."""
