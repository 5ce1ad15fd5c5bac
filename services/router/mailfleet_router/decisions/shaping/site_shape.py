"""What shaping knows of one site while mail waits there: the ways to it, by source, and whose turn it is."""

from __future__ import annotations

import math

import msgspec

from mailfleet_core.model.wire import Route
from mailfleet_router.decisions.shaping.gate import Gate
from mailfleet_router.decisions.shaping.limits import Values
from mailfleet_router.decisions.shaping.pace import Pace
from mailfleet_router.decisions.shaping.selection import Selector
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
        "_base", "_route", "_scaled", "facts", "gates", "in_flight", "lanes", "narrow", "turn", "values", "warm", "window",
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
        self._scaled = len(lanes) / max(1, len(self.lanes))
        """The sender divides rates by all lanes of the source."""
        concurrency = values.concurrency
        self.window = math.inf if concurrency is None else max(LEAST_WINDOW, WINDOW_PER_CONNECTION * concurrency)
        if values.message_rate is not None:
            self.window = min(self.window, max(1, math.ceil(values.message_rate * WINDOW_SECONDS)))
        self.narrow = any(gate.narrow for gate in gates)
        self._base: Route | None = None
        self._route: Route | None = None

    def lane(self) -> int:
        """The next lane of the source."""
        self.turn += 1
        return self.lanes[self.turn % len(self.lanes)]

    def route(self, base: Route, connections: int = 0) -> Route:
        """`base` with the limits that the sender keeps; `connections`: fewer for now, 0: as they are."""
        if base is self._base and not connections and self._route is not None:
            return self._route
        values = self.values
        most = least_of(base.max_connections, values.concurrency, connections or None)
        route = msgspec.structs.replace(
            base,
            max_connections=int(most),
            connections_per_second=lower(base.connections_per_second, values.connection_rate, self._scaled),
            messages_per_second=lower(base.messages_per_second, values.message_rate, self._scaled),
            messages_per_connection=int(least_of(base.messages_per_connection, values.messages_per_connection)),
        )
        if not connections:
            self._base, self._route = base, route
        return route


def slow(values: Values, lanes: int) -> bool:
    """Is a rate too low to be divided among lanes?"""
    return any(rate is not None and rate < lanes for rate in (values.message_rate, values.connection_rate))


def least_of(*values: float | None) -> float:
    """The least of those that are given; at least 1."""
    return max(1, min(value for value in values if value is not None))


def lower(base: float, value: float | None, scaled: float) -> float:
    """The lower of two rates, where 0 (of the route) and None (of the policy) are no limit."""
    found = [rate for rate in (base, (value or 0.0) * scaled) if rate]
    return min(found, default=0.0)


class PoolAt:
    """One pool at one site."""

    __slots__ = ("looked_at", "members", "overflow", "plain", "selector")

    def __init__(self, site: str, members: tuple[tuple[str, int], ...], overflow: tuple[tuple[str, int], ...]) -> None:
        self.selector = Selector(site)
        self.members = members
        self.overflow = overflow
        self.plain = False
        """All its sources are in order here: whoever has had one keeps it."""
        self.looked_at = -math.inf


class SiteShape:
    """One site. It is forgotten with the site's queue; what was learned is kept elsewhere."""

    __slots__ = ("hosts", "name", "pace", "paces", "paths", "pools", "provider", "ruled", "tenants")

    def __init__(self, name: str, provider: str, hosts: frozenset[str], ruled: bool) -> None:
        self.name = name
        self.provider = provider
        self.hosts = hosts
        self.ruled = ruled
        """The policy's limits apply: the site was found by MX."""
        self.paths: dict[tuple[str, ...], Path] = {}
        self.pools: dict[tuple[str, frozenset[str]], PoolAt] = {}
        self.pace = Pace()
        self.paces: dict[str, Pace] = {}
        """By source."""
        self.tenants: dict[str, Pace] = {}
