"""Real processes under faults: the router with fake engines and clients, and what must hold."""
