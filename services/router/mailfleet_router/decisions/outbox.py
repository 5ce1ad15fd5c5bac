"""What a partition wants done: the shell does it, and says so where `token`s are given."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mailfleet_core.model.wire import Entry, Event
from mailfleet_router.decisions.settle import Ending


class Append(msgspec.Struct, frozen=True, gc=False):
    """A record for a partition of `mail.queue` or a lane of `mail.dispatch`."""

    partition: int
    key: bytes
    value: bytes | None
    tag: bytes


class Report(NamedTuple):
    """A DSN to make, store and queue. Making it again gives the same message id."""

    token: int
    purpose: str
    """Part of its id: `3/failed` after attempt 3."""
    entry: Entry
    endings: tuple[Ending, ...]
    at: float
    mx: str = ""


class Outbox:
    """Everything wanted since the last look."""

    __slots__ = (
        "asks", "batch", "counts", "dispatches", "events", "lessons", "moves", "own", "reports", "states", "wide",
    )  # fmt: skip

    def __init__(self, batch: int = 0) -> None:
        self.own: list[Append] = []
        """For the partition itself, in this order; they are acted on when they are read back."""
        self.dispatches: list[Append] = []
        self.moves: list[tuple[int, Append]] = []
        """(token, PUT for any partition)."""
        self.events: list[Event] = []
        """One batch; when it is durable: `Partition.durable(batch)`."""
        self.batch = batch
        self.reports: list[Report] = []
        self.asks: list[str] = []
        """Domains to ask the DNS for."""
        self.lessons: list[tuple[str, str]] = []
        """(domain, site) that others do not know."""
        self.states: list[tuple[int, Append]] = []
        """(token or 0, record for `mail.site`)."""
        self.wide: list[tuple[str, bytes]] = []
        """(source, what was learned of it) for all routers."""
        self.counts: list[tuple[str, str, str, int]] = []
        """(what, label, label, how many) for metrics."""
