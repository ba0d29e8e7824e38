"""The one Envoy of a node: listeners inside of pods' networks, and tunnels between pods."""
