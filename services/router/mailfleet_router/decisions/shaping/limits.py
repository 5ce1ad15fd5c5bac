"""Which limits apply to an attempt, with which values, counted under which keys, and who keeps each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mailfleet_router.decisions.shaping.gcra import default_burst
from mailfleet_router.decisions.shaping.schema import QUANTITIES, Case, Limit, Provider, Traffic
from mailfleet_router.decisions.shaping.values import FIELDS, Facts, fits, rate_per_second

ROUTER, SENDER, BOTH = "router", "sender", "both"

SENDERS = ("connection_rate", "concurrency", "messages_per_connection")
"""Quantities that the sender keeps which owns the lane; the router sends the least values with each dispatch."""

MOST_CACHED = 50_000
"""Combinations of facts that are remembered; then it starts anew."""


class Values(NamedTuple):
    """Values of one case, or the least of several. None: no limit."""

    message_rate: float | None = None
    """Messages per second."""
    connection_rate: float | None = None
    """New connections per second."""
    concurrency: int | None = None
    """Connections at once."""
    messages_per_connection: int | None = None
    window: int | None = None
    """Units in senders' hands at once."""
    burst: float = 1.0
    """Messages that may go at once; only with a `message_rate`."""
    suspend: bool = False
    ramp: float | None = None
    """Messages per second with which it begins."""


class Effective(NamedTuple):
    """One limit that applies."""

    limit: str
    key: str
    """Of the counter. The values are no part of it, so that a changed limit keeps its debt."""
    values: Values
    limit_number: int
    """The limit's number in the policy, from 0."""
    case_number: int
    """The number of the case in the limit, from 0."""
    enforced_by: str
    """`router`, `sender` or `both`."""
    spans_partitions: bool
    """Its counter is not kept by one partition's owner alone: the grants are leased."""


class Limits:
    """All limits of a policy, compiled: facts → those that apply. An answer is remembered by the fields that can matter."""

    def __init__(self, traffic: Traffic) -> None:
        self._limits = tuple(_Compiled(index, limit) for index, limit in enumerate(traffic.limits))
        used = {field for limit in self._limits for field in limit.fields}
        self.fields = frozenset(used)
        """Indices in FIELDS of those that can matter."""
        self.used = tuple(sorted(used))
        self.others = tuple([index for index in self.used if index != FIELDS.index("source")])
        """Of those, all but the source."""
        self._known: dict[tuple[str, ...], tuple[Effective, ...]] = {}

    def effective(self, facts: Facts) -> tuple[Effective, ...]:
        """The limits that apply to `facts`, in the order of the policy; a counter for each."""
        key = tuple([facts[index] for index in self.used])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_CACHED:
                self._known.clear()
            applied = (limit.effective(facts) for limit in self._limits)
            found = self._known[key] = tuple(limit for limit in applied if limit)
        return found


def least(effective: Iterable[Effective]) -> Values:
    """Of each quantity the least; `burst` is that of the least message rate."""
    all_values = [limit.values for limit in effective]
    rated = [values for values in all_values if values.message_rate is not None]
    slowest = min(rated, key=lambda values: (values.message_rate or 0.0, values.burst), default=Values())
    return Values(
        slowest.message_rate,
        min((values.connection_rate for values in all_values if values.connection_rate is not None), default=None),
        min((values.concurrency for values in all_values if values.concurrency is not None), default=None),
        min(
            (values.messages_per_connection for values in all_values if values.messages_per_connection is not None),
            default=None,
        ),
        min((values.window for values in all_values if values.window is not None), default=None),
        slowest.burst,
        any(values.suspend for values in all_values),
        min((values.ramp for values in all_values if values.ramp is not None), default=None),
    )


def provider_of(providers: Iterable[Provider], mx_hosts: Iterable[str], domain: str = "") -> str:
    """The provider of a domain: who names it, else whose MX patterns all its MX hosts match (of several patterns the
    longest wins); empty if there is none. Independent of order, case and trailing dots."""
    known = tuple(providers)
    for provider in known:
        if domain and any(fits(pattern, domain) for pattern in provider.domains):
            return provider.name
    hosts = {host.lower().rstrip(".") for host in mx_hosts}
    names = {_provider_of_host(known, host) for host in hosts}
    return names.pop() if len(names) == 1 else ""


def weight(pattern: str) -> tuple[bool, int]:
    """Of two patterns that fit, the heavier counts: a whole name before a pattern, then the longer."""
    return "*" not in pattern, len(pattern)


def _provider_of_host(providers: tuple[Provider, ...], host: str) -> str:
    found = [(weight(pattern), each.name) for each in providers for pattern in each.mx if fits(pattern, host)]
    return max(found)[1] if found else ""


def counter_key(limit: str, per: Iterable[str]) -> str:
    """The name of a limit and the values of the fields that it is kept by; two that differ have different keys."""
    return "|".join(part.lower().replace("%", "%25").replace("|", "%7C") for part in (limit, *per))


def values_of(case: Case) -> Values:
    """The values of a case, as numbers per second."""
    rate = None if case.message_rate is None else rate_per_second(case.message_rate)
    return Values(
        rate,
        None if case.connection_rate is None else rate_per_second(case.connection_rate),
        case.concurrency,
        case.messages_per_connection,
        case.window,
        float(case.burst) if case.burst is not None else default_burst(rate or 0.0),
        case.suspend,
        None if case.ramp is None else rate_per_second(case.ramp),
    )


class _Compiled:
    """A limit whose cases hold only the patterns that are given."""

    def __init__(self, index: int, limit: Limit) -> None:
        self._index, self._name = index, limit.name
        self._per = tuple(FIELDS.index(field) for field in dict.fromkeys(limit.per))
        self._cases = tuple((_tests(case), values_of(case), _keeper(case)) for case in limit.cases)
        self.fields = {*self._per, *(field for tests, _, _ in self._cases for field, _ in tests)}

    def effective(self, facts: Facts) -> Effective | None:
        """The first case that matches."""
        for number, (tests, values, keeper) in enumerate(self._cases):
            if all(any(fits(pattern, facts[field]) for pattern in patterns) for field, patterns in tests):
                key = counter_key(self._name, (facts[field] for field in self._per))
                spans = FIELDS.index("site") not in self._per
                return Effective(self._name, key, values, self._index, number, keeper, spans)
        return None


def _tests(case: Case) -> tuple[tuple[int, tuple[str, ...]], ...]:
    given = ((index, getattr(case.when, field)) for index, field in enumerate(FIELDS))
    return tuple((index, patterns) for index, patterns in given if patterns)


def _keeper(case: Case) -> str:
    given = {name for name in QUANTITIES if getattr(case, name) is not None}
    by_sender = bool(given.intersection(SENDERS))
    by_router = bool(given.difference(SENDERS)) or case.suspend
    return BOTH if by_sender and by_router else SENDER if by_sender else ROUTER
