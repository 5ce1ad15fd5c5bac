"""What the connections of a process, and those of one listener, share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from mailfleet_core import metrics
from mailfleet_core.bus.port import Bus
from mailfleet_core.clock import Clock
from mailfleet_core.tls import Certificates
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.admission import Admission, Network
from mailfleet_ingest.decisions.deadlines import Deadlines
from mailfleet_ingest.decisions.policy import Policy
from mailfleet_ingest.decisions.reply import Reply
from mailfleet_ingest.shell.acceptance import Acceptance
from mailfleet_ingest.shell.authenticator import Authenticator

if TYPE_CHECKING:
    from mailfleet_ingest.shell.connection import Connection


@dataclass(slots=True)
class Hub:
    """What all connections of a process share."""

    bus: Bus
    clock: Clock
    acceptance: Acceptance
    authenticator: Authenticator
    admission: Admission
    deadlines: Deadlines
    max_held_bytes: int
    max_in_flight_bytes: int
    connections: set[Connection] = field(default_factory=set)
    held_bytes: int = 0
    """Of unfinished mail, over all connections."""
    draining: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection ends."""
    _rejections: dict[Reply, Counter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # From the start, or the first refusals would be no change: a counter that appears with 7 has not grown.
        for each in reply.OUR_FAULT:
            self._rejections[each] = metrics.REJECTIONS.labels(each.code, each.reason)

    def refusal(self) -> Reply | None:
        """The answer to MAIL while no mail can be taken."""
        if self.draining:
            return reply.SHUTDOWN
        bus = self.bus
        if not bus.healthy or bus.in_flight_bytes > self.max_in_flight_bytes or self.held_bytes > self.max_held_bytes:
            return reply.OVERLOADED
        return None

    def count(self, rejections: list[Reply]) -> None:
        """Count refusals, then forget them."""
        for rejection in rejections:
            if rejection not in self._rejections:
                self._rejections[rejection] = metrics.REJECTIONS.labels(rejection.code, rejection.reason)
            self._rejections[rejection].inc()
        rejections.clear()


@dataclass(frozen=True, slots=True)
class Listener:
    """What all connections of a port share."""

    label: str
    policy: Policy
    certificates: Certificates | None
    implicit_tls: bool
    greeting_delay_seconds: float
    networks: tuple[Network, ...]
    gauge: Gauge
