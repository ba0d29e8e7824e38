"""Sockets that listen, each a thin driver: discovery, certificate signing, webhook, admin."""
