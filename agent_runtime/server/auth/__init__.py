"""Who may call an agent."""
