"""Which of the configured addresses are on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Standing(NamedTuple):
    """One address."""

    plumbed: bool
    since: float
    """When that began, or was first looked at; seconds since 1970."""
    error: str = ""


class Plumbing:
    """All of them."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._standings: dict[str, Standing | None] = dict.fromkeys(addresses)

    @property
    def any(self) -> bool:
        """Is one of them here?"""
        return any(standing is not None and standing.plumbed for standing in self._standings.values())

    def observe(self, address: str, error: str, now: float) -> bool:
        """What binding to it said (nothing: it is here); is that news?"""
        before = self._standings.get(address)
        if before is not None and before.plumbed == (not error):
            return False
        self._standings[address] = Standing(not error, now, error)
        return True

    def page(self) -> Mapping[str, object]:
        """For people and probes: the address and how it stands."""
        return {
            address: {"plumbed": standing.plumbed, "since": standing.since, "error": standing.error}
            for address, standing in self._standings.items()
            if standing is not None
        }
