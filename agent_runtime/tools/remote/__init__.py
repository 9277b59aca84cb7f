"""Other agents as tools."""
