"""Who holds which partitions: balanced, sticky, and handed over only when let go."""

from __future__ import annotations

from collections.abc import Iterable

from mailfleet_core.bus.sharing import shares


class Group:
    """The members of one group on one topic. Says what to tell whom; the server tells it."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.held: dict[int, set[int]] = {}
        """By member: told that it holds, and not told otherwise."""
        self.leaving: dict[int, set[int]] = {}
        """By member: asked to let go, not answered yet."""
        self.only: dict[int, frozenset[int]] = {}
        """By member: takes no others."""

    def enter(self, member: int, holding: Iterable[int], only: Iterable[int] | None = None) -> None:
        """A new member, or one that lost its connection and still holds some."""
        taken = set().union(*self.held.values()) if self.held else set()
        self.held[member] = set(holding) - taken
        self.leaving[member] = set()
        if only is not None:
            self.only[member] = frozenset(only)

    def leave(self, member: int) -> None:
        """It is gone, or has given all back."""
        self.held.pop(member, None)
        self.leaving.pop(member, None)
        self.only.pop(member, None)

    def released(self, member: int, partitions: Iterable[int]) -> None:
        """It let them go (or its time is over)."""
        if member in self.held:
            self.held[member] -= set(partitions)
            self.leaving[member] -= set(partitions)

    def moves(self) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]]:
        """(what to give to whom now, what to ask back from whom now); noted as told."""
        taken = set().union(*self.held.values()) if self.held else set()
        give, ask = {}, {}
        for member, share in shares(self.held, self.partitions, self.only).items():
            if back := frozenset(self.held[member] - share - self.leaving[member]):
                ask[member] = back
                self.leaving[member] |= back
            if new := frozenset(share - taken):
                give[member] = new
                self.held[member] |= new
        return give, ask
