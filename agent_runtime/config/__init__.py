"""The contents of an agent file."""
