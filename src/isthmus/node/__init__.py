"""The agent beside a proxy: keys, certificate requests, secrets for Envoy, bootstrap."""
