"""Tells addresses of this machine alone from those that others may reach. The web app and its start ask."""

from ipaddress import IPv6Address, ip_address


def is_loopback(address: str | None) -> bool:
    """Whether an address, in any spelling, is this machine's own; a name is not."""
    try:
        peer = ip_address(address or "")
    except ValueError:
        return False
    if isinstance(peer, IPv6Address) and peer.ipv4_mapped:
        peer = peer.ipv4_mapped
    return peer.is_loopback
