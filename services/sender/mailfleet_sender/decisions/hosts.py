"""The order in which hosts and addresses are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def hosts_in_order(hosts: Sequence[tuple[int, str]], jitter: Callable[[], float]) -> list[str]:
    """Names by preference; those of equal preference in random order, which spreads the load (RFC 5321 5.1)."""
    return [name for _, _, name in sorted((preference, jitter(), name) for preference, name in hosts)]


def addresses_in_order(addresses: Iterable[str], order: str, last: Callable[[str], bool]) -> list[str]:
    """Addresses of one host as `order` (`ipv6_first`, …) says; those that `last` names (failed just now) at the end."""
    wanted = [address for address in addresses if order != _only(not _is_v6(address))]
    v6_first = order.startswith("ipv6")
    return sorted(wanted, key=lambda address: (last(address), _is_v6(address) != v6_first))


def _is_v6(address: str) -> bool:
    return ":" in address


def _only(v6: bool) -> str:
    return "ipv6_only" if v6 else "ipv4_only"
