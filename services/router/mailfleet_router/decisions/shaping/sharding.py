"""Which shard of a hot site has which sources: the next map, from the last one and what the policy asks for.

A source moves only if it must, and so do units: a pool's slots follow its sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailfleet_core.model.shards import SLOTS
from mailfleet_core.model.wire import ShardMap

MOST_SHARDS = 64
"""Of one site: a slot is the least part that a shard can have."""

Pools = Mapping[str, Iterable[tuple[str, int]]]
"""Pool → (source, weight)."""


def plan(old: ShardMap | None, shards: int, sources: Iterable[str], pools: Pools) -> ShardMap:
    """The map for so many shards, or as many as there are sources. From its own answer it gives the same one again.

    A site that was divided and is not any more has one shard with all sources, so that its maps keep their order.
    """
    names = sorted(set(sources))
    count = max(1, min(shards, len(names), MOST_SHARDS))
    owner = _owners(old, count, names)
    divided = tuple(tuple(name for name in names if owner[name] == index) for index in range(count))
    before = dict(old.pools) if old is not None else {}
    fallback = [(owner[name], weight) for name, weight in pools.get("default", ()) if name in owner and weight > 0]
    found = {"": _slots(before.get(""), count, fallback or [(owner[name], 1) for name in names])}
    for pool, members in sorted(pools.items()):
        weights = [(owner[name], weight) for name, weight in members if name in owner and weight > 0]
        if pool and weights:
            found[pool] = _slots(before.get(pool), count, weights)
    return ShardMap(divided, tuple(sorted(found.items())))


def _owners(old: ShardMap | None, count: int, names: list[str]) -> dict[str, int]:
    """Source → shard: as before where that leaves every shard its equal part, give or take one."""
    least, odd = divmod(len(names), count)
    before = {name: index for index, group in enumerate(old.sources if old else ()) for name in group}
    kept: list[list[str]] = [[] for _ in range(count)]
    for name in names:
        if before.get(name, count) < count:
            kept[before[name]].append(name)
    # Those who have most keep the one more that not everybody can have.
    rich = sorted(range(count), key=lambda index: (-len(kept[index]), index))[:odd]
    room = [least + (index in rich) for index in range(count)]
    owner = {name: index for index in range(count) for name in kept[index][: room[index]]}
    free = [room[index] - len(kept[index][: room[index]]) for index in range(count)]
    for name in names:
        if name not in owner:
            # One after the other, so that neighbours, which are often of one pool, come apart.
            index = max(range(count), key=lambda index: (free[index], -index))
            free[index] -= 1
            owner[name] = index
    return owner


def _slots(old: bytes | None, count: int, weights: list[tuple[int, int]]) -> bytes:
    """For each slot a shard, in parts as the weights are; as before where that is so."""
    total = sum(weight for _, weight in weights)
    if not total:
        return bytes(SLOTS)
    exact = [SLOTS * sum(weight for at, weight in weights if at == index) / total for index in range(count)]
    parts = [int(part) for part in exact]
    # What rounding leaves, and at least one for whoever has a source at all.
    order = sorted(range(count), key=lambda index: (parts[index] - exact[index], index))
    for index in order[: SLOTS - sum(parts)]:
        parts[index] += 1
    for index in range(count):
        if exact[index] > 0 and not parts[index]:
            parts[index] += 1
            parts[max(range(count), key=lambda other: (parts[other], -other))] -= 1
    slots = [-1] * SLOTS
    for place, index in enumerate(old or b""):
        if place < SLOTS and index < count and parts[index]:
            parts[index] -= 1
            slots[place] = index
    rest = iter([index for index in range(count) for _ in range(parts[index])])
    return bytes(index if index >= 0 else next(rest) for index in slots)
