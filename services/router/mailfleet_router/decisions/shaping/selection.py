"""Which source of a pool sends the next unit to a site, or until when and why none does.

Among the sources that may send, each has turns in proportion to configured weight x remaining allowance x score. A tenant keeps
the source that it got for a quarter of an hour, since a site that greylists knows senders by their address (RFC 6647,
https://www.rfc-editor.org/rfc/rfc6647) and begins anew with another one. Where a source is in quarantine, transactional mail
goes by another one at once; bulk mail waits, and one unit a minute tries whether the site has changed its mind.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from mailfleet_router.decisions.shaping.warmup import UNLIMITED

STICKY_SECONDS = 900.0
"""How long a tenant keeps a source at a site: greylisting asks for minutes (Postgrey: 300 s,
https://manpages.ubuntu.com/manpages/trusty/man8/postgrey.8.html, read 2026-11-22). Our design."""
PROBE_SECONDS = 60.0
"""Between two units that try a source in quarantine. Our design."""
UNKNOWN_SECONDS = 60.0
"""When to look again if nobody knows when something changes."""
TENANTS_KEPT = 10_000
"""At most so many choices are remembered, the newest."""


class Option(NamedTuple):
    """A source as it stands at one site."""

    source: str
    weight: float = 1.0
    """Configured; 0: never."""
    allowance: int = UNLIMITED
    """What warm-up lets it send now."""
    more_at: float = 0.0
    """When there is more allowance; 0: not known."""
    score: float = 100.0
    """Its reputation there, 0 to 100."""
    quarantined: bool = False
    excluded_until: float = 0.0
    """It must not send before (a pause, a suspension, no lane); `inf`: nobody knows when. 0: it may."""
    excluded_by: str = ""
    """Who says so and why."""


class Request(NamedTuple):
    """Whose mail it is."""

    tenant: str
    bulk: bool = False
    asked: str = ""
    """The source that met a greylisting deferral with this unit."""


class Choice(NamedTuple):
    """Send by this source."""

    source: str
    reason: str
    probe: bool = False
    """It is in quarantine, and this unit tries it."""
    overflow: bool = False
    """It is of the overflow pool."""


class Wait(NamedTuple):
    """Nobody may send it before an instant."""

    until: float
    reason: str
    by: str
    """What decided: `warm-up`, `reputation`, `greylisting`, `excluded`, or `pool` when it has no source."""


class Selector:
    """The choices for one site and pool."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._turns: dict[str, float] = {}
        self._kept: dict[str, tuple[str, float]] = {}
        self._probed: dict[str, float] = {}

    def choose(self, request: Request, pool: Sequence[Option], overflow: Sequence[Option], now: float) -> Choice | Wait:
        """The source of the next unit. The caller takes it from the source's allowance."""
        options = {option.source: option for option in pool if option.weight > 0}
        usable = [option for option in options.values() if _usable(option, now)]
        return (
            self._asked(request, options, overflow, now)
            or (self._probe(options, now) if request.bulk else None)
            or self._sticky(request, options, now)
            or self._turn(request, usable, now)
            or self._overflow(request, options, overflow, now)
            or self._probe(options, now)
            or self._wait(options, now)
        )

    def kept(self, tenant: str, now: float) -> str:
        """The source that a tenant has for now; empty: none."""
        source, until = self._kept.get(tenant, ("", 0.0))
        return source if now < until <= now + STICKY_SECONDS else ""

    # --- the steps, in their order -------------------------------------------------------------------------------
    @staticmethod
    def _asked(
        request: Request, options: dict[str, Option], overflow: Sequence[Option], now: float
    ) -> Choice | Wait | None:
        surplus = {option.source: option for option in overflow if option.weight > 0}
        option = options.get(request.asked) or surplus.get(request.asked)
        if option is None or option.quarantined:
            return None
        if _usable(option, now):
            why = "the site greylisted this source and expects it again"
            return Choice(option.source, why, overflow=option.source not in options)
        until = max(option.excluded_until, option.more_at if option.allowance <= 0 else 0.0)
        if now < until <= now + STICKY_SECONDS:
            return Wait(until, f"greylisting expects {option.source}: {_why(option, now)}", "greylisting")
        return None

    def _probe(self, options: dict[str, Option], now: float) -> Choice | None:
        for option in options.values():
            if not option.quarantined or option.excluded_until > now or option.allowance <= 0:
                continue
            if self._probe_at(option.source, now) <= now:
                self._probed[option.source] = now
                return Choice(option.source, "in quarantine: one unit a minute tries it", probe=True)
        return None

    def _sticky(self, request: Request, options: dict[str, Option], now: float) -> Choice | Wait | None:
        source = self.kept(request.tenant, now)
        option = options.get(source)
        if option is None:
            return None
        until = self._kept[request.tenant][1]
        if _usable(option, now):
            return Choice(source, "this tenant's source for a quarter of an hour")
        if option.quarantined and request.bulk:
            # Its bulk does not fall upon the other sources the moment that one is quarantined.
            return Wait(min(until, self._free_at(option, now)), _why(option, now), "reputation")
        return None

    def _turn(self, request: Request, usable: list[Option], now: float, overflow: bool = False) -> Choice | None:
        if not usable:
            return None
        source = self._heaviest(usable)
        self._keep(request.tenant, source, now)
        what = (
            "its turn among the sources of the overflow pool" if overflow else "its turn among the sources of the pool"
        )
        return Choice(source, what, overflow=overflow)

    def _overflow(
        self, request: Request, options: dict[str, Option], overflow: Sequence[Option], now: float
    ) -> Choice | None:
        """Warm-up sends its surplus there, and transactional mail flees there; bulk does not flee from a quarantine."""
        spent = not options or any(option.allowance <= 0 and not option.quarantined for option in options.values())
        if request.bulk and not spent:
            return None
        found = [option for option in overflow if option.weight > 0 and _usable(option, now)]
        kept, _ = self._kept.get(request.tenant, ("", 0.0))
        same = [option for option in found if option.source == kept]
        return self._turn(request, same or found, now, overflow=True)

    def _wait(self, options: dict[str, Option], now: float) -> Wait:
        if not options:
            return Wait(now + UNKNOWN_SECONDS, "the pool has no source", "pool")
        waits = [(self._free_at(option, now), _why(option, now), _by(option, now)) for option in options.values()]
        until, _, by = min(waits)
        reasons = "; ".join(sorted({reason for _, reason, _ in waits}))
        return Wait(until, reasons, by)

    # --- what they rest on ---------------------------------------------------------------------------------------
    def _heaviest(self, usable: list[Option]) -> str:
        """Smooth weighted round robin with weights that may change from turn to turn."""
        most = max((option.allowance for option in usable if option.allowance < UNLIMITED), default=1)
        total = 0.0
        best, heaviest = "", (-1e300, 0)
        for option in usable:
            # One without a limit counts as the best of those that have one: they are to be used up, too.
            weight = option.weight * min(option.allowance, most) / most * max(option.score, 1.0)
            total += weight
            turn = self._turns[option.source] = self._turns.get(option.source, 0.0) + weight
            # Sites differ in who is first among equals, or quiet ones would all use the same source.
            rank = (round(turn, 6), zlib.crc32(f"{self._site} {option.source}".encode("utf-8", "surrogateescape")))
            if rank > heaviest:
                best, heaviest = option.source, rank
        self._turns[best] -= total
        return best

    def _keep(self, tenant: str, source: str, now: float) -> None:
        kept, until = self._kept.get(tenant, ("", 0.0))
        if kept == source and now < until <= now + STICKY_SECONDS:
            return
        self._kept.pop(tenant, None)
        self._kept[tenant] = (source, now + STICKY_SECONDS)  # the newest is last
        while self._kept[oldest := next(iter(self._kept))][1] <= now or len(self._kept) > TENANTS_KEPT:
            del self._kept[oldest]

    def _probe_at(self, source: str, now: float) -> float:
        last = self._probed.get(source, -1e300)
        return last + PROBE_SECONDS if last <= now else now

    def _free_at(self, option: Option, now: float) -> float:
        at = max(option.excluded_until, option.more_at if option.allowance <= 0 else 0.0)
        if option.quarantined:
            at = max(at, self._probe_at(option.source, now))
        return at if now < at < float("inf") else now + UNKNOWN_SECONDS


def _usable(option: Option, now: float) -> bool:
    return option.excluded_until <= now and not option.quarantined and option.allowance > 0


def _by(option: Option, now: float) -> str:
    if option.excluded_until > now:
        return "excluded"
    return "reputation" if option.quarantined else "warm-up"


def _why(option: Option, now: float) -> str:
    if option.excluded_until > now:
        return f"{option.source} {option.excluded_by or 'is excluded'}"
    if option.quarantined:
        return f"{option.source} is in quarantine at this site (score {option.score:.0f})"
    return f"{option.source} has used up what warm-up allows"
