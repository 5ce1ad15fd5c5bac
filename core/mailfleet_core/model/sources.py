"""Egress sources and pools as `mail.control` tells of them. Routers and senders fold the same table, so both know which
lanes are whose; it depends on what the newest records say, never on their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from mailfleet_core.model import wire
from mailfleet_core.model.wire import ACTIVE, Pool, Source

SOURCE_KEY, POOL_KEY = b"source|", b"pool|"
"""How their keys in `mail.control` begin; then comes the name."""
DEFAULT_POOL = "default"

T = TypeVar("T")
Members = tuple[tuple[str, int], ...]
"""(source, weight) of a pool."""


class Table:
    """The sources and pools there are now."""

    def __init__(self, lanes: int, sources: Iterable[Source] = ()) -> None:
        """`lanes` is how many the topic of dispatches has."""
        self.sources: dict[str, Source] = {source.name: source for source in sources}
        self.named_pools: dict[str, Pool] = {}
        self.count = lanes
        self._owners: dict[int, str] | None = None

    def read(self, key: bytes, value: bytes | None) -> bool:
        """Take one record of `mail.control`. Returns whether anything has changed. Raises Malformed."""
        if key.startswith(SOURCE_KEY):
            name = key.removeprefix(SOURCE_KEY).decode(errors="replace")
            found = None if value is None else msgspec.structs.replace(wire.decode(Source, value), name=name)
            changed = _put(self.sources, name, found)
            self._owners = None if changed else self._owners
            return changed
        if key.startswith(POOL_KEY):
            name = key.removeprefix(POOL_KEY).decode(errors="replace")
            pool = None if value is None else msgspec.structs.replace(wire.decode(Pool, value), name=name)
            return _put(self.named_pools, name, pool)
        return False

    def lanes(self, source: str) -> tuple[int, ...]:
        """The lanes that are this source's own. One that several claim is an active one's, else the first by name's."""
        known = self.sources.get(source)
        owners = self._owned()
        return tuple(sorted({lane for lane in known.lanes if owners.get(lane) == source})) if known else ()

    def takes(self, source: str, lane: int) -> bool:
        """May a sender begin a dispatch for `source` that came by `lane`?"""
        known = self.sources.get(source)
        return known is not None and known.state == ACTIVE and self._owned().get(lane) == source

    def pools(self) -> dict[str, Members]:
        """Every pool, with the sources that take mail now: they are active and have a weight and a lane. Who names no
        pool may use every source, unless there is a pool `default`."""
        found: dict[str, Members] = dict.fromkeys(self.named_pools, ())
        everything: Members = ()
        for name, source in sorted(self.sources.items()):
            members = ((name, source.weight),) if self._open(source) else ()
            found[source.pool] = found.get(source.pool, ()) + members
            everything += members
        found.setdefault(DEFAULT_POOL, everything)
        return found

    def closed(self) -> dict[str, tuple[Source, ...]]:
        """Pool → its sources that take no mail because somebody said so."""
        found: dict[str, tuple[Source, ...]] = {}
        for _, source in sorted(self.sources.items()):
            if source.state != ACTIVE:
                found[source.pool] = (*found.get(source.pool, ()), source)
        return found

    def overflow(self) -> dict[str, str]:
        """Pool → the pool that takes what its own sources may not."""
        return {name: pool.overflow for name, pool in self.named_pools.items() if pool.overflow}

    def mistakes(self) -> list[str]:
        """What is wrong with the sources, for people."""
        owners = self._owned()
        return [
            f"source {name} claims lane {lane}, which {_not_its_own(lane, owners.get(lane), self.count)}"
            for name, source in sorted(self.sources.items())
            for lane in sorted(set(source.lanes))
            if owners.get(lane) != name
        ]

    def _open(self, source: Source) -> bool:
        return source.state == ACTIVE and source.weight > 0 and bool(self.lanes(source.name))

    def _owned(self) -> dict[int, str]:
        if self._owners is None:
            self._owners = {}
            for source in sorted(self.sources.values(), key=lambda source: (source.state != ACTIVE, source.name)):
                for lane in source.lanes:
                    if 0 <= lane < self.count:
                        self._owners.setdefault(lane, source.name)
        return self._owners


def _put(table: dict[str, T], name: str, value: T | None) -> bool:
    if table.get(name) == value:
        return False
    if value is None:
        del table[name]
    else:
        table[name] = value
    return True


def _not_its_own(lane: int, owner: str | None, lanes: int) -> str:
    return f"is {owner}'s" if owner is not None else f"is not there: there are {lanes}"


def why_closed(source: Source) -> str:
    """Why a source takes no new mail, for people: `ip-1 is quarantined: listed by zen (ann)`."""
    reason = f": {source.reason}" if source.reason else ""
    return f"{source.name} is {source.state}{reason}" + (f" ({source.by})" if source.by else "")
