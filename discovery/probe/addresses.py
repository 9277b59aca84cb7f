"""Which addresses the registry itself may call: an agent's endpoint is somebody else's word. Pure; looks no name up.

Some are never called, whatever anyone allows: link-local ones and those of a cloud's metadata service would hand out
the credentials of this machine, and multicast, unspecified and reserved ones are nobody's endpoint.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog"})
METADATA = frozenset(
    ip_address(one)
    for one in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NAT64 = IPv6Network("64:ff9b::/96")
_HOST_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]*")


class Forbidden(Exception):
    """An address that is not called; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be called. Without `hosts` and `networks` that is every host but the forbidden ones.

    `loopback` says whether this machine's own addresses may be, where the other two do not name them.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    loopback: bool = False

    @classmethod
    def read(cls, allowed: Iterable[str], *, loopback: bool) -> Self:
        """Read host patterns (`*.agents.example`), addresses and networks (`10.0.0.0/8`).

        Raises:
            ValueError: Naming the entry that is none of these.
        """
        hosts: list[str] = []
        networks: list[Network] = []
        for entry in allowed:
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not _HOST_PATTERN.fullmatch(entry.lower()):
                    raise ValueError(entry) from None
                hosts.append(entry.lower())
        return cls(hosts=tuple(hosts), networks=tuple(networks), loopback=loopback)

    def check(self, host: str, address: Address) -> None:
        """Return if `host`, which stands for `address`, may be called.

        Raises:
            Forbidden: It may not.
        """
        judged = _meant(address)
        shown = host if host == str(judged) else f"{host} ({judged})"
        if (why := _never(host, judged)) is not None:
            raise Forbidden(f"{shown} is {why}")
        if self.hosts or self.networks:
            if not self._names(host, judged):
                raise Forbidden(f"{shown} is not named by DISCOVERY_PROBE_ALLOW")
        elif judged.is_loopback and not self.loopback:
            raise Forbidden(f"{shown} is the registry's own machine; DISCOVERY_PROBE_ALLOW can name it")

    def _names(self, host: str, address: Address) -> bool:
        name = host.lower().rstrip(".")
        by_name = any(fnmatchcase(name, pattern) for pattern in self.hosts)
        return by_name or any(address in network for network in self.networks)


def _never(host: str, address: Address) -> str | None:
    if host.lower().rstrip(".") in METADATA_HOSTS or address in METADATA:
        return "a cloud's metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "an address to listen on, not one to call"
    if address.is_reserved and not address.is_loopback:
        return "a reserved address"
    return None


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it stands for one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
