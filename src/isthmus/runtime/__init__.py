"""Settings, assembly, life cycle: the only place where the rooms meet."""
