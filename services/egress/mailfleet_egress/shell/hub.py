"""What all connections of the proxy share."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailfleet_core import metrics
from mailfleet_core.clock import Clock
from mailfleet_egress.decisions.rules import Doorman, Rules
from mailfleet_egress.settings import EgressProxySettings
from mailfleet_egress.shell.users import Users

if TYPE_CHECKING:
    from mailfleet_egress.shell.connection import Connection

log = logging.getLogger(__name__)


@dataclass
class Hub:
    """One for each process."""

    settings: EgressProxySettings
    rules: Rules
    doorman: Doorman
    users: Users
    clock: Clock
    draining: bool = False
    connections: set[Connection] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection is gone."""
    octets: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """By source and direction, since the metrics were told."""

    def refuse(self, reason: str, client: str, **more: object) -> None:
        """Count a refusal, and tell people of those that they may want to look at."""
        metrics.EGRESS_REFUSALS.labels(reason).inc()
        log.info("refused: %s", reason, extra={"client": client, **more})

    def tell(self) -> None:
        """Bring the metrics up to date with what was moved."""
        for connection in self.connections:
            connection.count()
        moved, self.octets = self.octets, defaultdict(int)
        for (source, direction), octets in moved.items():
            metrics.EGRESS_BYTES.labels(source, direction).inc(octets)
