"""What the settings ask of the router, as values that decisions may hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailfleet_core.model.wire import Route
from mailfleet_router.decisions.shaping.rules import NO_RULES, Rules

MOST_ASKED_SECONDS = 4 * 3600.0
"""A site that asks for a longer wait is tried again earlier."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """When a stream's mail is tried again, how long at all, and when its sender is told of the delay."""

    retry_seconds: tuple[float, ...] = (300.0,)
    jitter: float = 0.2
    delay_dsn_seconds: float = 0.0
    greylist: bool = True
    """Try again after the time that greylisting asks for."""

    @property
    def longest(self) -> float:
        """No wait that we impose on one unit is longer, in seconds."""
        return max(MOST_ASKED_SECONDS, *self.retry_seconds) * (1.0 + self.jitter)


@dataclass(frozen=True, slots=True)
class Rule:
    """The next hop of some recipient domains. `site` is empty for MX: there the answer of the DNS names it."""

    domains: tuple[str, ...]
    route: Route
    site: str = ""
    site_messages_per_second: float = 0.0
    site_window: int = 100

    def matches(self, domain: str) -> bool:
        """Is `domain` (lower case) meant?"""
        return any(
            pattern in ("*", domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))
            for pattern in self.domains
        )


LAST_RESORT = Rule(("*",), Route(kind="mx", hosts=()))


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the decisions of the router are told."""

    ladders: dict[str, Ladder] = field(default_factory=dict)
    pools: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Pool → (source, weight)."""
    lanes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Source → its lanes."""
    rules: tuple[Rule, ...] = (LAST_RESORT,)
    recipients_per_unit: int = 100
    in_flight_report_seconds: float = 900.0
    held_report_seconds: float = 30.0
    recent_units: int = 50_000
    shaping: Rules = NO_RULES
    """The traffic policy."""

    def ladder(self, stream: str) -> Ladder:
        """The ladder of `stream`; a stream that is in no settings any more gets the default one."""
        return self.ladders.get(stream) or _DEFAULT_LADDER

    def pool(self, name: str) -> tuple[tuple[str, int], ...]:
        """Sources of a pool; a pool that is in no settings any more is the default one."""
        return self.pools.get(name) or self.pools.get("default", ())

    def rule(self, domain: str) -> Rule:
        """The first rule that matches `domain`."""
        return next((rule for rule in self.rules if rule.matches(domain)), LAST_RESORT)


_DEFAULT_LADDER = Ladder()
