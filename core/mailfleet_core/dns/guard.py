"""The inside-address guard: a recipient domain's MX may point anywhere, also at this machine or the cluster's own services.

It judges the address that is really connected to, after the last answer of the DNS, so rebinding changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

INSIDE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b::/96", "64:ff9b:1::/48",
        "2002::/16", "2001::/32", "::ffff:0:0/96", "::/96",
    )
)  # fmt: skip
"""Never connected to unless allowed: this host, private, link-local, shared, multicast, reserved; and the IPv6 ranges that
carry an IPv4 address inside them (mapped, compatible, NAT64, 6to4, Teredo), which are no mail server's address."""


class InsideGuard:
    """Says whether an address may be connected to."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """`allowed`: networks or addresses that are inside and meant. Raises ValueError."""
        self._allowed = tuple(ipaddress.ip_network(text, strict=False) for text in allowed)
        self._known: dict[str, bool] = {}

    def permits(self, address: str) -> bool:
        """May `address` be connected to? What is no address may not."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) > 10_000:
                self._known.clear()
            known = self._known[address] = self._judge(address)
        return known

    def _judge(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        inside = _in_any(parsed, INSIDE)
        if inside and isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            # The kernel connects ::ffff:a.b.c.d over IPv4, so an allowed IPv4 network means it too.
            return _in_any(parsed.ipv4_mapped, self._allowed) or _in_any(parsed, self._allowed)
        return not inside or _in_any(parsed, self._allowed)


def _in_any(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
