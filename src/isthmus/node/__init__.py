"""The agent beside a proxy: key, certificate, secrets, bootstrap, health, redirect."""
