"""A pod and settings become the patch that puts a proxy beside it."""
