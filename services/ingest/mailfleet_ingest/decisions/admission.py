"""How many connections there are, and whether one more may come."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.reply import Reply

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks written in `texts`. Raises ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def within(client: str, allowed: Iterable[Network]) -> bool:
    """Whether the address `client` is in one of the networks."""
    address = ipaddress.ip_address(client.partition("%")[0])
    return any(address in network for network in allowed)


class Admission:
    """Counts connections in all, per client address and per credential."""

    def __init__(self, in_all: int, per_address: int, per_credential: int) -> None:
        self._in_all = in_all
        self._per_address = per_address
        self._per_credential = per_credential
        self.open = 0
        self._addresses: Counter[str] = Counter()
        self._credentials: Counter[str] = Counter()

    def admit(self, address: str) -> Reply | None:
        """Count a connection from `address`, or the reply that turns it away (then it is not counted)."""
        if self.open >= self._in_all or self._addresses[address] >= self._per_address:
            return reply.TOO_MANY_CONNECTIONS
        self.open += 1
        self._addresses[address] += 1
        return None

    def leave(self, address: str) -> None:
        """The connection ended."""
        self.open -= 1
        _less(self._addresses, address)

    def admit_credential(self, name: str, own_limit: int) -> Reply | None:
        """Count a session of the credential `name`, or the reply that turns it away."""
        if self._credentials[name] >= min(own_limit or self._per_credential, self._per_credential):
            return reply.TOO_MANY_CONNECTIONS
        self._credentials[name] += 1
        return None

    def leave_credential(self, name: str) -> None:
        """The session ended."""
        _less(self._credentials, name)


def _less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
