"""A view said in a proxy's language, as serialized bytes."""
