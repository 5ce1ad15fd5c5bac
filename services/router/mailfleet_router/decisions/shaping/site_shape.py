"""What shaping knows of one site while mail waits there: the ways to it, by source, and whose turn it is."""

from __future__ import annotations

import math

import msgspec

from mailfleet_core.model.wire import Route
from mailfleet_router.decisions.shaping.gate import Gate
from mailfleet_router.decisions.shaping.limits import Values
from mailfleet_router.decisions.shaping.pace import Pace
from mailfleet_router.decisions.shaping.selection import Option, Selector
from mailfleet_router.decisions.shaping.standings import Stand
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.warming import Warm

WINDOW_PER_CONNECTION = 4
"""Units in senders' hands for each connection that may be open: enough that none is ever idle."""
LEAST_WINDOW = 8
WINDOW_SECONDS = 4.0
"""Of a limited rate, so much at most is in senders' hands: what is there when a pause begins still goes out."""


class Path:
    """One source at one site, for mail that the limits treat alike."""

    __slots__ = (
        "_base", "_route", "_scaled", "closed", "closed_until", "facts", "gates", "in_flight", "lanes", "narrow", "stand", "turn",
        "values", "warm", "window",
    )  # fmt: skip

    def __init__(
        self, facts: Facts, values: Values, gates: tuple[Gate, ...], lanes: tuple[int, ...], warm: Warm | None
    ) -> None:
        self.facts = facts
        self.values = values
        """The least of all limits that apply."""
        self.gates = gates
        self.warm = warm
        self.in_flight = 0
        self.turn = 0
        used = min(len(lanes), values.concurrency or len(lanes), 1 if slow(values, len(lanes)) else len(lanes))
        self.lanes = lanes[: max(1, used)]
        self._scaled = max(1, len(lanes)) / max(1, len(self.lanes))
        """The sender divides rates by all lanes of the source."""
        self.window: float = max(LEAST_WINDOW, WINDOW_PER_CONNECTION * (values.concurrency or 1))
        if values.message_rate is not None:
            self.window = min(self.window, max(1, math.ceil(values.message_rate * WINDOW_SECONDS)))
        self.stand: Stand | None = None
        """Of its source at the site, once one is kept."""
        self.narrow = any(gate.narrow for gate in gates)
        self.closed: Option | None = None
        """What it was when its rates let nothing go, which holds until then."""
        self.closed_until = -math.inf
        self._base: Route | None = None
        self._route: Route | None = None

    @property
    def paced(self) -> bool:
        """Does nothing but rates of our own hold its mail? Then it is known when the next may go, whoever asks."""
        return all(gate.in_flight < gate.window and not (gate.spans or gate.suspend) for gate in self.gates)

    def lane(self) -> int:
        """The next lane of the source."""
        self.turn += 1
        return self.lanes[self.turn % len(self.lanes)]

    def route(self, base: Route, connections: int = 0) -> Route:
        """`base` with the limits that the sender keeps; `connections`: fewer for now, 0: as they are."""
        if base is self._base and not connections and self._route is not None:
            return self._route
        values = self.values
        route = msgspec.structs.replace(
            base,
            max_connections=int(least_of(values.concurrency, connections or None)),
            connections_per_second=(values.connection_rate or 0.0) * self._scaled,
            messages_per_second=(values.message_rate or 0.0) * self._scaled,
            messages_per_connection=values.messages_per_connection or base.messages_per_connection,
        )
        if not connections:
            self._base, self._route = base, route
        return route


def slow(values: Values, lanes: int) -> bool:
    """Is a rate too low to be divided among lanes?"""
    return any(rate is not None and rate < lanes for rate in (values.message_rate, values.connection_rate))


def least_of(*values: float | None) -> float:
    """The least of those that are given; at least 1."""
    return max(1, min((value for value in values if value is not None), default=1))


def with_route(values: Values, base: Route) -> Values:
    """The least of the policy's limits and of those that the settings give to a route (0: none)."""
    rates = [rate for rate in (values.message_rate, base.messages_per_second) if rate]
    dials = [rate for rate in (values.connection_rate, base.connections_per_second) if rate]
    return values._replace(
        message_rate=min(rates, default=values.message_rate),
        connection_rate=min(dials, default=values.connection_rate),
        concurrency=int(least_of(base.max_connections, values.concurrency)),
        messages_per_connection=int(least_of(base.messages_per_connection, values.messages_per_connection)),
    )


class PoolAt:
    """One pool at one site."""

    __slots__ = ("looked_at", "members", "names", "overflow", "plain", "selector")

    def __init__(
        self, selector: Selector, members: tuple[tuple[str, int], ...], overflow: tuple[tuple[str, int], ...]
    ) -> None:
        self.selector = selector
        self.members = members
        self.names = frozenset(source for source, _ in members)
        self.overflow = overflow
        self.plain = False
        """All its sources are in order here: whoever has had one keeps it."""
        self.looked_at = -math.inf


class SiteShape:
    """One site. It is forgotten with the site's queue; what was learned is kept elsewhere."""

    __slots__ = (
        "base", "divided", "hosts", "name", "pace", "paces", "paths", "pools", "provider", "ruled", "selectors", "stands",
        "tenants",
    )  # fmt: skip

    def __init__(self, name: str, provider: str, hosts: frozenset[str], base: Route) -> None:
        self.name = name
        self.provider = provider
        self.hosts = hosts
        self.base = base
        """What the settings say of sending there."""
        self.ruled = base.kind == "mx"
        """The policy's limits apply: the site was found by MX."""
        self.divided = False
        """Other partitions have shards of it."""
        self.paths: dict[tuple[str, ...], Path] = {}
        self.pools: dict[tuple[str, frozenset[str]], PoolAt] = {}
        self.selectors: dict[tuple[str, frozenset[str]], Selector] = {}
        """Of pools as they were before: whose turn it is, and which tenant has which source."""
        self.pace = Pace()
        self.paces: dict[str, Pace] = {}
        """By source."""
        self.tenants: dict[str, Pace] = {}
        self.stands: dict[tuple[str, str, str], tuple[tuple[Stand, int], ...]] = {}
        """Where what is delivered is counted: by source, tenant and stream."""
