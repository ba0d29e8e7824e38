"""Gateway objects of the Gateway API: what must run for them, and what is said of them; pure."""
