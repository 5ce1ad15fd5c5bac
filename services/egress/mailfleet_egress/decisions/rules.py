"""From where to where a client may connect, and what a failure is called."""

from __future__ import annotations

import errno
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mailfleet_core.socks.wire import Code

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Answer(NamedTuple):
    """A reply code, and the word under which it is counted (empty: it is done)."""

    code: Code
    reason: str = ""


DONE = Answer(Code.DONE)


class Rules:
    """What the settings allow."""

    def __init__(self, addresses: Iterable[str], ports: Iterable[int], permits: Callable[[str], bool]) -> None:
        """`permits`: is an address one that may be connected to (`InsideGuard.permits`)?"""
        self.addresses = tuple(dict.fromkeys(str(ipaddress.ip_address(text)) for text in addresses))
        self._allowed = frozenset(self.addresses)
        self._ports = frozenset(ports)
        self._permits = permits

    def source(self, address: str) -> Answer:
        """May a client connect from `address`?"""
        return DONE if address in self._allowed else Answer(Code.FORBIDDEN, "source")

    def destination(self, source: str, address: str, port: int) -> Answer:
        """May it connect from `source` there?"""
        if port not in self._ports:
            return Answer(Code.FORBIDDEN, "port")
        if not self._permits(address):
            return Answer(Code.FORBIDDEN, "inside")
        if (":" in source) != (":" in address):
            return Answer(Code.NO_SUCH_ADDRESS_TYPE, "family")
        return DONE


_HERE = frozenset(
    {errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM}
)
"""Errors of this machine; at `connect`, EADDRNOTAVAIL means that no port is left for that destination."""
_ABROAD = {
    errno.ENETUNREACH: Answer(Code.NETWORK_UNREACHABLE, "network_unreachable"),
    errno.ECONNREFUSED: Answer(Code.REFUSED, "connection_refused"),
    errno.ETIMEDOUT: Answer(Code.TIMED_OUT, "timed_out"),
}


def binding(number: int | None) -> Answer:
    """The answer to an error of binding to a source."""
    return Answer(Code.FAILED, "unplumbed" if number == errno.EADDRNOTAVAIL else "local")


def connecting(number: int | None) -> Answer:
    """The answer to an error of connecting. What is not known is the destination's: a stranger cannot provoke what would
    be taken for a fault of ours."""
    if number in _HERE:
        return Answer(Code.FAILED, "local")
    return _ABROAD.get(number or 0, Answer(Code.HOST_UNREACHABLE, "host_unreachable"))


TIMED_OUT = _ABROAD[errno.ETIMEDOUT]


class Doorman:
    """How many clients there are, and from where."""

    def __init__(self, most: int, most_each: int, networks: Iterable[str] = ()) -> None:
        self._most, self._most_each = most, most_each
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in networks)
        self._clients: Counter[str] = Counter()
        self.count = 0

    def admit(self, client: str) -> str:
        """Count a client in; or why not, in a word."""
        if self._networks and not self._within(client):
            return "client"
        if self.count >= self._most:
            return "full"
        if self._clients[client] >= self._most_each:
            return "client_full"
        self._clients[client] += 1
        self.count += 1
        return ""

    def leave(self, client: str) -> None:
        """It is gone."""
        self.count -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

    def _within(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
