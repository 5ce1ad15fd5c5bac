"""Who should hold which partitions of a topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Member = TypeVar("Member")


def shares(held: Mapping[Member, frozenset[int]], partitions: int) -> dict[Member, frozenset[int]]:
    """Even shares that leave with each member as much as possible of what it holds.

    The odd ones go to those that hold most, so that an arrival moves no more than it must.
    """
    each, rest = divmod(partitions, max(1, len(held)))
    eager = sorted(held, key=lambda member: -len(held[member]))
    sizes = {member: each + (index < rest) for index, member in enumerate(eager)}
    kept = {member: frozenset(sorted(held[member])[:size]) for member, size in sizes.items()}
    free = sorted(set(range(partitions)).difference(*kept.values()))
    for member, size in sizes.items():
        missing = size - len(kept[member])
        kept[member] |= frozenset(free[:missing])
        free = free[missing:]
    return kept
