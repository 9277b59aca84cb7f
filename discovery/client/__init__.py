"""The client of the registry."""

from discovery.client.client import DiscoveryClient, registered

__all__ = ["DiscoveryClient", "registered"]
