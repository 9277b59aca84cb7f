"""Checks whether registered endpoints can be reached."""

from discovery.probe.prober import probing

__all__ = ["probing"]
