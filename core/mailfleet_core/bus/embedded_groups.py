"""Who holds which partitions: balanced, sticky, and handed over only when let go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def balance(held: Mapping[int, Iterable[int]], partitions: int) -> dict[int, set[int]]:
    """The share of each member, given what each holds now: sizes differ by one at most, as little as possible moves."""
    if not held:
        return {}
    free = set(range(partitions))
    shares: dict[int, set[int]] = {}
    for member, has in held.items():
        shares[member] = free & set(has)
        free -= shares[member]
    small, larger = divmod(partitions, len(shares))
    # Those who hold most keep one more: fewer partitions move.
    order = sorted(shares, key=lambda member: (-len(shares[member]), member))
    for place, member in enumerate(order):
        quota = small + (place < larger)
        for surplus in sorted(shares[member])[quota:]:
            shares[member].discard(surplus)
            free.add(surplus)
    for place, member in enumerate(order):
        quota = small + (place < larger)
        while len(shares[member]) < quota:
            taken = min(free)
            free.discard(taken)
            shares[member].add(taken)
    return shares


class Group:
    """The members of one group on one topic. Says what to tell whom; the server tells it."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.held: dict[int, set[int]] = {}
        """By member: told that it holds, and not told otherwise."""
        self.leaving: dict[int, set[int]] = {}
        """By member: asked to let go, not answered yet."""

    def enter(self, member: int, holding: Iterable[int]) -> None:
        """A new member, or one that lost its connection and still holds some."""
        taken = set().union(*self.held.values()) if self.held else set()
        self.held[member] = set(holding) - taken
        self.leaving[member] = set()

    def leave(self, member: int) -> None:
        """It is gone, or has given all back."""
        self.held.pop(member, None)
        self.leaving.pop(member, None)

    def released(self, member: int, partitions: Iterable[int]) -> None:
        """It let them go (or its time is over)."""
        if member in self.held:
            self.held[member] -= set(partitions)
            self.leaving[member] -= set(partitions)

    def moves(self) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]]:
        """(what to give to whom now, what to ask back from whom now); noted as told."""
        shares = balance(self.held, self.partitions)
        taken = set().union(*self.held.values()) if self.held else set()
        give, ask = {}, {}
        for member, share in shares.items():
            if back := frozenset(self.held[member] - share - self.leaving[member]):
                ask[member] = back
                self.leaving[member] |= back
            if new := frozenset(share - taken):
                give[member] = new
                self.held[member] |= new
        return give, ask
