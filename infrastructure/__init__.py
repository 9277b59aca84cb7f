"""What the agent server and the registry share: TLS, request head limits, SQLite writes."""
