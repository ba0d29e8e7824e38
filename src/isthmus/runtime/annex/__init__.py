"""The annex: a process beside the control plane's that signs certificates and injects proxies."""
