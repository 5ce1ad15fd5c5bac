"""Hot sites: one site whose units several queue partitions share, each with sources of its own.

A map says which sources each shard has. It stands in `mail.control` under `shards|<site>`, and its number is its offset there, so
all readers put maps into one order. The number is part of a shard's name: who meets a unit of a newer map than he has read leaves
it where it is, who meets one of an older map moves it on. So a unit moves at most once for each map.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple

from mailfleet_core.model.wire import ShardMap, decode

SLOTS = 64
"""Parts into which the units of a pool fall; each belongs to a shard."""
MARK = "#"
"""Between a site's name and the rest; in no other name of a site."""
KEY = b"shards|"
"""And the site's name: the key of its map in `mail.control`."""


class Shard(NamedTuple):
    """A shard, as its name says it: `google#1/4.8132` is shard 1 of 4 by map 8132."""

    site: str
    place: int
    total: int
    number: int


class Numbered(NamedTuple):
    """A map as it was read."""

    number: int
    map: ShardMap


@lru_cache(maxsize=4096)
def shard_of(name: str) -> Shard | None:
    """What the name of a site says; None: it is no shard."""
    site, mark, rest = name.rpartition(MARK)
    index, slash, rest = rest.partition("/")
    count, dot, number = rest.partition(".")
    if not (mark and slash and dot and index.isdecimal() and count.isdecimal() and number.isdecimal()):
        return None
    return Shard(site, int(index), max(1, int(count)), int(number))


def shard_name(shard: Shard) -> str:
    """The inverse of `shard_of`."""
    return f"{shard.site}{MARK}{shard.place}/{shard.total}.{shard.number}"


def site_of(name: str) -> str:
    """The site of a shard; any other site is its own."""
    if MARK not in name:
        return name
    shard = shard_of(name)
    return shard.site if shard else name


def home(name: str, site: str, known: Numbered | None, message_id: bytes, pool: str) -> str:
    """Where a unit belongs that lies at `name` and goes to `site`: a shard, or the site if it is not divided."""
    at = shard_of(name) if MARK in name else None
    newest = known.number if known is not None else -1
    if at is not None and at.site == site and at.number > newest:
        return name
    if known is None:
        return site
    slots = dict(known.map.pools)
    shards = slots.get(pool) or slots.get("") or b"\0"
    index = shards[zlib.crc32(message_id) % len(shards)]
    return shard_name(Shard(site, index, len(known.map.sources), known.number))


def sources_of(name: str, known: Numbered | None) -> frozenset[str] | None:
    """The sources that a shard has by the newest map; none for a shard of another map; None: it is no shard, and has all."""
    at = shard_of(name) if MARK in name else None
    if at is None:
        return None if known is None else frozenset()
    if known is None or at.number != known.number or at.place >= len(known.map.sources):
        return frozenset()
    return frozenset(known.map.sources[at.place])


def learn(table: dict[str, Numbered], offset: int, key: bytes, value: bytes | None) -> str | None:
    """Bring `table` (site → map) up to a record of `mail.control`; the site that it is about, if it is about one.
    Raises Malformed."""
    if not key.startswith(KEY) or value is None:
        return None
    site = key[len(KEY) :].decode("utf-8", "replace")
    if site in table and table[site].number >= offset:
        return None
    table[site] = Numbered(offset, decode(ShardMap, value))
    return site
