"""What really happened, from recorded events: arrivals, attempts with their answers, and what was held.

Events say neither the pool nor the campaign of a unit, so those facts are empty: a rule or limit that names one does not
apply here. An attempt whose sender was lost has no answer and is left out, and so are refusals of our own (no source).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, Event, RecipientOutcome
from mailfleet_router.decisions.shaping.values import Facts

LATE_SECONDS, MAX_EARLY = 30.0, 20_000
"""Events of several partitions come a little out of order: so long one is kept back, and so many of them at most."""
MAX_INSTANT = 1e11
"""Seconds since 1970, in the year 5138. An event of another time than from 1970 to then is not looked at."""
LAST_ANSWER = "; the last answer was: "
"""Stands in the text of `expired` before that of the site (see `settle`)."""


class Answer(NamedTuple):
    """What one attempt came to for recipients of one domain."""

    outcome: RecipientOutcome
    """Its index is that of the first of them."""
    recipients: int
    domain: str


class Recorded(NamedTuple):
    """An attempt and its answers. Instants are seconds since 1970."""

    unit: bytes
    attempt: int
    facts: Facts
    """Without the provider, which the policy decides; the domain is that of the first recipient."""
    mx: str
    started_at: float
    ended_at: float
    answers: tuple[Answer, ...]


class Queued(NamedTuple):
    """A unit that came to a site's queue, before any attempt."""

    unit: bytes
    facts: Facts
    at: float


class Begun(NamedTuple):
    """An attempt was given to a source."""

    unit: bytes
    facts: Facts
    at: float


class Held(NamedTuple):
    """A unit could have been tried and was not."""

    facts: Facts
    reason: str
    at: float


Step = Queued | Begun | Held | Recorded


def attempts(events: Iterable[Event]) -> Iterator[Recorded]:
    """The attempts that `events` tell of, by the instant at which they ended."""
    return (step for step in steps(events) if isinstance(step, Recorded))


def steps(events: Iterable[Event]) -> Iterator[Step]:
    """Everything that matters to a replay, in order of time. The order of events of one instant makes no difference;
    one that is told twice within `LATE_SECONDS` counts once."""
    several: list[Event] = []
    for event in _in_order(events):
        ending = _is_answer(event)
        if several and not (ending and _attempt_of(several[0]) == _attempt_of(event)):
            yield _recorded(several)
            several = []
        if ending:
            several.append(event)
        elif simple := _simple(event):
            yield simple
    if several:
        yield _recorded(several)


_ENDINGS = {"delivered": DELIVERED, "deferred": DEFERRED, "bounced": BOUNCED, "expired": DEFERRED}
_RANKS = {"queued": 0, "attempted": 1, "held": 2}


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    waiting: list[tuple[_Key, int, Event]] = []
    newest, last = -math.inf, None
    arrivals = _Arrivals()
    for number, event in enumerate(events):
        if not 0.0 <= event.at <= MAX_INSTANT:
            continue
        newest = max(newest, event.at)
        key = _key(event)
        arrivals.comes(event, key)
        heapq.heappush(waiting, (key, number, event))
        while waiting and (waiting[0][0][0] < newest - LATE_SECONDS or len(waiting) > MAX_EARLY):
            key, _, first = heapq.heappop(waiting)
            if (told := arrivals.goes(first)) and key != last:
                yield told
            last = key
    for key, _, first in sorted(waiting):
        if (told := arrivals.goes(first)) and key != last:
            yield told
        last = key


_Key = tuple[float, int, bytes, int, str, str, bytes]


class _Arrivals:
    """A unit arrives once, at the site where it stays: before its domain is asked about it waits for a moment at a site of
    the domain's name, and a new owner of its partition begins its story again."""

    def __init__(self) -> None:
        self._ahead: dict[bytes, tuple[int, _Key, str]] = {}
        """Of units with events that are kept back: how many, the newest, and its site."""
        self._arrived: dict[bytes, None] = {}
        """Units that were not attempted since."""

    def comes(self, event: Event, key: _Key) -> None:
        """An event is kept back."""
        if event.kind in ("queued", "attempted"):
            unit = _unit(event)
            count, newest, site = self._ahead.get(unit, (0, key, event.site))
            self._ahead[unit] = (count + 1, key, event.site) if key > newest else (count + 1, newest, site)

    def goes(self, event: Event) -> Event | None:
        """And has its turn; None: it is not to be told."""
        unit = _unit(event)
        site = self._site(unit) if event.kind in ("queued", "attempted") else event.site
        if event.kind != "queued" or event.attempt:
            if event.kind != "held":
                self._arrived.pop(unit, None)
            return event
        if unit in self._arrived:
            return None
        if len(self._arrived) >= MAX_EARLY:
            del self._arrived[next(iter(self._arrived))]
        self._arrived[unit] = None
        return event if event.site == site else msgspec.structs.replace(event, site=site)

    def _site(self, unit: bytes) -> str:
        count, newest, site = self._ahead.pop(unit)
        if count > 1:
            self._ahead[unit] = (count - 1, newest, site)
        return site


def _key(event: Event) -> _Key:
    # Different events have different keys; answers of one attempt stand together.
    rank = 3 if _is_answer(event) else _RANKS.get(event.kind, 2)
    return (event.at, rank, _unit(event), event.attempt, event.source, event.site, _encode(event))


def _is_answer(event: Event) -> bool:
    return event.kind in _ENDINGS and bool(event.source)


_encode = msgspec.msgpack.Encoder().encode


def _attempt_of(event: Event) -> tuple[bytes, int, float, str, str]:
    return _unit(event), event.attempt, event.at, event.source, event.site


def _simple(event: Event) -> Step | None:
    facts = _facts(event)
    if event.kind == "queued":
        return None if event.attempt else Queued(_unit(event), facts, event.at)
    if event.kind == "attempted":
        return Begun(_unit(event), facts, event.at)
    return Held(facts, event.text, event.at) if event.kind == "held" else None


def _recorded(several: list[Event]) -> Recorded:
    first = several[0]
    took = first.seconds if 0.0 <= first.seconds <= first.at else 0.0
    answers = tuple([answer for event in several for answer in _answers(event)])
    mx = next((event.mx for event in several if event.mx), "")
    return Recorded(_unit(first), first.attempt, _facts(first), mx, first.at - took, first.at, answers)


def _answers(event: Event) -> Iterator[Answer]:
    text, enhanced = event.text, event.enhanced
    if event.kind == "expired":
        # What the site's own enhanced code was is not recorded.
        text, enhanced = text.partition(LAST_ANSWER)[2], ""
    domains: dict[str, list[int]] = {}
    for index, address in event.recipients:
        domains.setdefault(_domain(address), []).append(index)
    for domain, indexes in domains.items() or {"": [-1]}.items():
        outcome = RecipientOutcome(indexes[0], _ENDINGS[event.kind], event.code, enhanced, text, event.phase)
        yield Answer(outcome, len(indexes), domain)


def _facts(event: Event) -> Facts:
    domain = _domain(event.recipients[0][1]) if event.recipients else ""
    return Facts(tenant=event.tenant, stream=event.stream, source=event.source, site=event.site, domain=domain)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower() if "@" in address else ""


def _unit(event: Event) -> bytes:
    return event.unit or "".join(event.spelled[2:3]).encode("utf-8", "replace")
