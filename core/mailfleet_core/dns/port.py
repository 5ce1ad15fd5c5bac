"""The resolver port: answers as values, so that "no such domain" and "could not ask" are never confused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class DnsTemporary(Exception):
    """The question could not be answered now (SERVFAIL, time-out, bogus): try again later, never bounce."""


@dataclass(frozen=True, slots=True)
class MxAnswer:
    """Where mail for a domain goes."""

    kind: str
    """`mx`; `implicit` (no MX, the domain's own address, RFC 5321 5.1); `null` (RFC 7505); `missing` (NXDOMAIN, or
    neither MX nor address)."""
    hosts: tuple[tuple[int, str], ...] = ()
    """(preference, lower-case host name without the last dot), best first; at most 20."""


class Resolver(Protocol):
    """Cached questions to the DNS."""

    async def mx(self, domain: str) -> MxAnswer:
        """Where mail for `domain` (A-labels or U-labels) goes. Raises DnsTemporary."""

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IPv4 and IPv6 addresses of a host, in the order of the answers; empty when it has none. Raises DnsTemporary."""
