"""Which addresses the registry may call: a table, without a socket."""

import re
from ipaddress import ip_address

import pytest

from discovery.probe.addresses import AddressPolicy, ForbiddenAddress

NEVER = [
    ("169.254.169.254", "link-local"),
    ("169.254.0.1", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%1", "link-local"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::127.0.0.1", "reserved"),
    # The same, dressed as IPv6.
    ("::ffff:169.254.169.254", "link-local"),
    ("64:ff9b::a9fe:a9fe", "link-local"),
    ("2002:a9fe:a9fe::1", "link-local"),
    ("::ffff:100.100.100.200", "metadata"),
    ("::ffff:0.0.0.0", "unspecified"),
    ("::ffff:224.0.0.1", "multicast"),
]
OWN = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
PRIVATE = ["10.1.2.3", "172.16.0.9", "192.168.1.7", "100.64.0.1", "fd12:3456::7", "::ffff:10.1.2.3"]
PUBLIC = ["93.184.216.34", "2606:2800:220:1::1"]


def why_not(policy: AddressPolicy, address: str, host: str = "agent.example") -> str | None:
    try:
        policy.check(host, ip_address(address))
    except ForbiddenAddress as error:
        return str(error)
    return None


@pytest.mark.parametrize(("address", "word"), NEVER)
@pytest.mark.parametrize("allowed", [[], ["*"], ["0.0.0.0/0", "::/0"], ["agent.example"]])
def test_some_addresses_are_never_called_whoever_allows_them(address: str, word: str, allowed: list[str]) -> None:
    for loopback in (True, False):
        told = why_not(AddressPolicy.of(allowed, loopback=loopback), address)
        assert told is not None
        assert word in told
        assert told.startswith("agent.example (")


def test_a_number_is_named_once() -> None:
    assert why_not(AddressPolicy(), "169.254.169.254", "169.254.169.254") == "169.254.169.254 is a link-local address"


@pytest.mark.parametrize("name", ["metadata.google.internal", "METADATA.google.internal.", "metadata.goog"])
def test_a_metadata_service_is_known_by_its_name_too(name: str) -> None:
    told = why_not(AddressPolicy.of(["*"], loopback=True), "93.184.216.34", name)
    assert told is not None
    assert "metadata service" in told


@pytest.mark.parametrize("address", OWN)
def test_the_registrys_own_machine_is_called_only_where_it_listens_there_or_where_it_is_named(address: str) -> None:
    told = why_not(AddressPolicy.of([], loopback=False), address)
    assert told is not None
    assert "DISCOVERY_PROBE_ALLOW" in told
    assert why_not(AddressPolicy.of([], loopback=True), address) is None
    assert why_not(AddressPolicy.of(["127.0.0.0/8", "::1"], loopback=False), address) is None
    assert why_not(AddressPolicy.of(["agent.example"], loopback=False), address) is None
    assert why_not(AddressPolicy.of(["10.0.0.0/8"], loopback=True), address) is not None


@pytest.mark.parametrize("address", PRIVATE + PUBLIC)
def test_agents_live_in_private_networks_and_elsewhere(address: str) -> None:
    assert why_not(AddressPolicy(), address) is None


@pytest.mark.parametrize(
    ("allowed", "host", "address", "may"),
    [
        (["10.0.0.0/8"], "a.example", "10.1.2.3", True),
        (["10.0.0.0/8"], "a.example", "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "a.example", "192.168.1.7", False),
        (["10.0.0.0/8"], "a.example", "93.184.216.34", False),
        (["10.1.2.3"], "a.example", "10.1.2.4", False),
        (["[fd12::1]", "fd12:3456::/32"], "a.example", "fd12:3456::7", True),
        (["*.agents.example"], "a.agents.example", "93.184.216.34", True),
        (["*.Agents.example"], "A.agents.EXAMPLE.", "93.184.216.34", True),
        (["*.agents.example"], "agents.example", "93.184.216.34", False),
        (["*.agents.example"], "a.agents.example.evil.test", "93.184.216.34", False),
        (["one", "two"], "two", "10.0.0.9", True),
    ],
)
def test_an_allow_list_is_all_there_is(allowed: list[str], host: str, address: str, may: bool) -> None:
    told = why_not(AddressPolicy.of(allowed, loopback=True), address, host)
    assert (told is None) is may, told


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://a.example", "a b", "a.example:8000", "", "-x", "a/b"])
def test_what_is_neither_host_nor_network_is_refused_by_name(entry: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(entry)}$"):
        AddressPolicy.of(["10.0.0.0/8", entry], loopback=False)
