"""The machine below the lab's clusters: networks, pods, probes, volumes, names and services."""
