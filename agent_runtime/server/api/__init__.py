"""One file for each protocol that an agent serves."""
