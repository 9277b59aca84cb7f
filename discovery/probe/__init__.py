"""Checks whether registered endpoints answer."""
