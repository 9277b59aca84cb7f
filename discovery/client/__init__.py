"""The client of the registry: `DiscoveryClient` for single calls, `registered()` and the middleware for a lifetime."""

from discovery.client.cache import CachedList
from discovery.client.client import DiscoveryClient, RotatingToken
from discovery.client.middleware import RegistrationMiddleware
from discovery.client.registration import RegistrationState, local_endpoint, own_endpoint, registered
from discovery.client.responses import DiscoveryError, RegistrationRefused, RegistryEvent

__all__ = [
    "CachedList",
    "DiscoveryClient",
    "DiscoveryError",
    "RegistrationMiddleware",
    "RegistrationRefused",
    "RegistrationState",
    "RegistryEvent",
    "RotatingToken",
    "local_endpoint",
    "own_endpoint",
    "registered",
]
