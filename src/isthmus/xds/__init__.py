"""How a proxy is told: subscribe, offer, acknowledge, refuse, as a state table without sockets."""
