"""Which pool each address belongs to: one at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mailfleet_operator.decisions.resources import Address, Pool


class Belonging(NamedTuple):
    """An address in a pool."""

    pool: str
    spare: bool


def belongings(pools: Iterable[Pool], addresses: Mapping[str, Address]) -> dict[str, Belonging]:
    """By source. A pool's own sources come first, those of the older pool before; then spares by who has taken them."""
    ordered = sorted((pool for pool in pools if not pool.deleting), key=lambda pool: (pool.created_at, pool.name))
    found: dict[str, Belonging] = {}
    for pool in ordered:
        for member in pool.spec.sources:
            if member.name in addresses:
                found.setdefault(member.name, Belonging(pool.name, False))
    for pool in ordered:
        for taken in pool.status.spares:
            if taken.name in addresses and taken.name in pool.spec.spares:
                found.setdefault(taken.name, Belonging(pool.name, True))
    return found


def naming(pools: Iterable[Pool]) -> dict[str, list[str]]:
    """Source → the pools whose spec names it, as a source of theirs or a spare; the oldest first."""
    found: dict[str, list[str]] = {}
    for pool in sorted(pools, key=lambda pool: (pool.created_at, pool.name)):
        for name in {*(member.name for member in pool.spec.sources), *pool.spec.spares}:
            found.setdefault(name, []).append(pool.name)
    return found


def conflicts(pool: Pool, found: Mapping[str, Belonging], addresses: Mapping[str, Address]) -> tuple[str, ...]:
    """What keeps the pool from having all that its spec names, for people."""
    missing = [member.name for member in pool.spec.sources if member.name not in addresses]
    taken = [
        f"{member.name} belongs to pool {found[member.name].pool}"
        for member in pool.spec.sources
        if member.name in found and found[member.name].pool != pool.name
    ]
    return (*(f"there is no SendingIP {name}" for name in missing), *taken)
