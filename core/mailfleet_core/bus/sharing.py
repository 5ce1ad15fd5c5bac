"""Who should hold which partitions of a topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

Member = TypeVar("Member")


def shares(
    held: Mapping[Member, Iterable[int]], partitions: int, only: Mapping[Member, frozenset[int]] | None = None
) -> dict[Member, frozenset[int]]:
    """Who of the members in `held` should have which of `partitions` partitions, given what each has now.

    A member in `only` gets no others than those; what nobody takes stays without a holder. No partition could go to
    a member that has fewer by two or more, and no more of them move than that needs.
    """
    sharing = _Sharing(held, partitions, only or {})
    sharing.give_free()
    sharing.even_out()
    return {member: frozenset(share) for member, share in sharing.share.items()}


class _Sharing(Generic[Member]):
    """Shares while they are made."""

    def __init__(
        self, held: Mapping[Member, Iterable[int]], partitions: int, only: Mapping[Member, frozenset[int]]
    ) -> None:
        self.share: dict[Member, set[int]] = {}
        self._free = set(range(partitions))
        for member, has in held.items():
            kept = self._free.intersection(has)
            self.share[member] = kept & only[member] if member in only else kept
            self._free -= self.share[member]
        self._takes_all = [member for member in held if member not in only]
        self._takes: dict[int, list[Member]] = {}
        for member in held:
            for partition in only.get(member, ()):
                self._takes.setdefault(partition, []).append(member)

    def give_free(self) -> None:
        """Give what nobody has, first what few would take."""
        for partition in sorted(self._free, key=lambda partition: (len(self._takes.get(partition, ())), partition)):
            if takers := self._takers(partition, self._least(self._takes_all)):
                self.share[self._least(takers)[0]].add(partition)

    def even_out(self) -> None:
        """Move from those who have most, while that evens the shares out."""
        while self._moved():
            pass

    def _moved(self) -> bool:
        least = self._least(self._takes_all)
        for giver in sorted(self.share, key=lambda member: -len(self.share[member])):
            for partition in sorted(self.share[giver], reverse=True):
                taker = self._least(self._takers(partition, least))[0]
                if len(self.share[taker]) + 2 <= len(self.share[giver]):
                    self.share[giver].discard(partition)
                    self.share[taker].add(partition)
                    return True
        return False

    def _takers(self, partition: int, least: list[Member]) -> list[Member]:
        return [*least, *self._takes.get(partition, ())]

    def _least(self, members: list[Member]) -> list[Member]:
        """The one of them that has least; none if there are none."""
        return [min(members, key=lambda member: len(self.share[member]))] if members else []
