"""The control plane at scale: API servers of a made-up fleet on one side, proxies on the other."""
