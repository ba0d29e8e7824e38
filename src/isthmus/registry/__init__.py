"""All clusters' objects become one mesh model."""
