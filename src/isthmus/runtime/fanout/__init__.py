"""Fan-out: processes that tell proxies what the control plane's process has compiled."""
