"""The HTTP server of agents."""
