"""Address check for webhooks: a server may call public addresses, and those its operator allows."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from operators.errors import BackendUnavailable, InputError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 networks that embed an IPv4 address for gateways."""
GLOBAL = ipaddress.ip_network("2000::/3")
"""Global unicast addresses of IPv6: no other block holds public hosts, whatever Python knows of it."""
SPECIAL = [
    ipaddress.ip_network(block)
    for block in (
        "192.0.0.0/24",  # protocols
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocols: Teredo, which holds an IPv4 address, ORCHID
        "2002::/16",  # 6to4, which holds another
        "3fff::/20",  # documentation
    )
]
"""Blocks inside the public ones that are not public; Python's own list differs between versions."""


@dataclass(frozen=True)
class Target:
    """Web address, resolved to the network address to connect to."""

    scheme: str
    host: str
    port: int
    path: str
    address: str

    @property
    def url(self) -> str:
        """Web address with the network address in place of the name."""
        return f"{self.scheme}://{_bracketed(self.address)}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        """Host header that the receiver expects."""
        usual = {"http": 80, "https": 443}[self.scheme]
        return _bracketed(self.host) + ("" if self.port == usual else f":{self.port}")


def allowed_networks(text: str) -> list[Network]:
    """Parse networks like ``10.0.0.0/8, ::1/128``; raises `InputError`."""
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(
            str(error), field="RECON_WEBHOOK_ALLOW", remedy="give networks such as 10.1.0.0/16, comma-separated"
        ) from error


def resolve(url: str, allow: list[Network]) -> Target:
    """Resolve a web address and check that it may be called.

    Raises
    ------
    InputError
        If it is no web address, or any of its network addresses is private and not allowed.
    BackendUnavailable
        If the name cannot be resolved.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no web address: {error}", field="webhook_url") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise InputError(f"{url!r} is no web address", field="webhook_url", remedy="give http(s)://HOST[:PORT]/PATH")
    port = port or {"http": 80, "https": 443}[parts.scheme]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BackendUnavailable(
            f"{host!r} cannot be resolved", field="webhook_url", remedy="check the name"
        ) from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if not (_public(address) or any(address in network for network in allow)):
            raise InputError(
                f"{host!r} leads to {address}, which is no public address",
                field="webhook_url",
                remedy="use a public one, or have the operator add its network to RECON_WEBHOOK_ALLOW",
            )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, str(addresses[0]))


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address in TRANSLATED:
            return _public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return _public(address.ipv4_mapped)
        if address not in GLOBAL:
            return False
    return address.is_global and not address.is_multicast and not any(address in block for block in SPECIAL)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
