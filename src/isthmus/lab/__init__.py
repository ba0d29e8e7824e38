"""Several small Kubernetes clusters on one machine: a house of its own that knows no mesh."""
