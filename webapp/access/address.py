"""Tells from which internet address a request comes, for limits that strangers share.

Addresses of this machine and of private networks have no such limits, but for attempts to sign in: whole offices and
proxies stand behind one, and who floods it is known there. Where a proxy of the deployment is the only way in
(`published_on`), it says who asks; from anybody else that header would be what the client likes.
"""

import contextlib
from ipaddress import IPv6Address, ip_address, ip_network

from flask import Request, current_app

PREFIX_BITS = 56  # of an IPv6 address: what a customer commonly gets


def address_of(request: Request) -> str:
    """The address in its usual spelling, for IPv6 its network; empty when it is not of the internet."""
    return internet_address(_told(request))


def any_address_of(request: Request) -> str:
    """The same; of a private network, the one machine's. Empty when nobody tells an address."""
    with contextlib.suppress(ValueError):
        return address_of(request) or str(ip_address(_told(request)))
    return ""


def _told(request: Request) -> str:
    if current_app.config["PUBLISHED_ON"]:
        return request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return request.remote_addr or ""


def internet_address(told: str) -> str:
    """The same for an address in any spelling, such as that of a connection's other end."""
    try:
        address = ip_address(told.strip())
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not address.is_global:
        return ""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, PREFIX_BITS), strict=False).network_address)
    return str(address)
