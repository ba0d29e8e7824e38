"""The kit for tests: builders, playbook, traffic simulation."""
