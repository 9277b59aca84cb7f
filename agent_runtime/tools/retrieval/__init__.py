"""Search in documents by meaning."""
