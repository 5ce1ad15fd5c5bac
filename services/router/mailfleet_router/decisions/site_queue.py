"""What waits for one site, and what waits at all."""

from __future__ import annotations

import msgspec

from mailfleet_core.model.shards import site_of
from mailfleet_core.model.wire import Entry
from mailfleet_router.decisions.bucket import Bucket
from mailfleet_router.decisions.policy import Rule
from mailfleet_router.decisions.routing import Domain
from mailfleet_router.decisions.shaping.fairness import Fair, Queue
from mailfleet_router.decisions.shaping.site_shape import SiteShape

# States of a unit in memory. They are numbers because there may be a million of them.
FOLDED, RESOLVING, READY, PARKED, DEFERRED, ATTEMPTING, IN_FLIGHT, ENDING = range(8)


TELLING, TOLD = 1, 2


class Held(msgspec.Struct, gc=False):
    """A queued unit. Its bytes stay as they are in the log and are decoded when something happens to it, which keeps it
    under a kilobyte; it owns no cycle by itself, so the collector need not visit it."""

    key: bytes
    raw: bytes
    """The Entry that was last written, or read, of it."""
    kind: bytes
    """And the kind of that record."""
    hop: int
    state: int = FOLDED
    attempts: int = 0
    due_at: float = 0.0
    accepted_at: float = 0.0
    expires_at: float = 0.0
    site: SiteQueue | None = None
    domain: Domain | None = None
    tenant: str = ""
    pool: str = ""
    stream: str = ""
    lane: int = -1
    since: float = 0.0
    """When it came into its state."""
    reported: str = ""
    """The hold that was told."""
    delay: int = 0
    """0, TELLING or TOLD: the DSN "delayed"."""
    entry: Entry | None = None
    """What `raw` says, of the few that will be needed at once."""


class SiteQueue:
    """One site: who is ready, how many are in senders' hands, what limits it."""

    __slots__ = (
        "active", "base", "bucket", "in_flight", "name", "ready", "resting", "rule", "shape", "stalled", "units", "waits",
        "waking", "why",
    )  # fmt: skip

    ready: Fair[Held]
    """Units that are due, by tenant and stream."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.base = site_of(name)
        """The site, of which this may be a shard."""
        self.resting: dict[Queue[Held], str] = {}
        """Those that wait until a unit comes back, and why."""
        self.shape: SiteShape | None = None
        """What shaping knows of it, once its hosts are known."""
        self.stalled = False
        """Nothing may go until a unit comes back."""
        self.in_flight = 0
        self.units = 0
        self.bucket = Bucket(0.0, now)
        self.rule: Rule | None = None
        self.active = False
        """It is in the scheduler's round."""
        self.waking = False
        """A timer will put it there."""
        self.waits = ""
        """Why the last unit that might have gone did not."""
        self.why = ""
        """Why its mail waits: the last answer."""

    def wants(self, held: Held) -> bool:
        """Does a unit still wait here?"""
        return held.state == READY and held.site is self
