"""Discovery: the registry of deployed agents, with its client."""
