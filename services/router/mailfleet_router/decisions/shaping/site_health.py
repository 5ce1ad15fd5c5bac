"""Whether a site can be connected to at all: a dead site, or a source that this site does not let in.

One MX host that refuses or does not answer is no verdict. A round is an attempt, or several, in which all hosts of the
site failed for one source; only attempts begun after the round before count, so that many connections that fail at
once are one piece of news. `ROUNDS` rounds block the source at this site; the site is dead when so many sources as
there are, but two at most, are blocked there and nobody was answered meanwhile. Both are probed after waits that
double from 1 to 15 minutes. Any success revives a dead site for everybody, at once; otherwise a source is freed by its
own success.

All instants are seconds of one clock that never steps. An event seen twice, or after newer ones of its source, changes
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mailfleet_core.model import reply as phases
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.backoff import Change, Struct

ROUNDS = 3
"""Failed rounds in a row that are believed."""
ENOUGH_SOURCES = 2
"""Sources that must fail before it is the site's fault, where there are so many."""
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 60.0, 900.0
"""Probes of what is blocked or dead wait from one to fifteen minutes, doubling."""
MAX_SOURCES, MAX_HOSTS = 64, 64
"""What is kept of a site at most; further sources and hosts are not looked at."""


class Failing(Struct, frozen=True):
    """A source that has lately failed to connect to the site."""

    source: str
    hosts: tuple[str, ...]
    """Those that failed in the round under way."""
    rounds: int
    failed_at: float
    """The newest failure."""
    round_at: float
    """The end of the newest round."""
    since: float
    """The first failure."""
    probe_at: float = 0.0
    wait_seconds: float = 0.0


class SiteHealth(Struct, frozen=True):
    """What is known of one site. The default is that of a site without troubles."""

    failing: tuple[Failing, ...] = ()
    dead_since: float = 0.0
    """0: alive."""
    probe_at: float = 0.0
    wait_seconds: float = 0.0
    answered_at: float = 0.0
    """The newest answer to any source while one was failing. Failures before it are history."""


class Site(NamedTuple):
    """What there is to fail: the hosts of the site, and how many sources send to it."""

    name: str
    hosts: frozenset[str]
    sources: int = 1


class Contact(NamedTuple):
    """What an attempt showed of the site."""

    source: str
    started_at: float
    at: float
    failed: tuple[str, ...] = ()
    """Hosts that refused or did not answer; empty: a host answered, whatever it said."""


ALIVE, BLOCKED, DEAD = "alive", "blocked", "dead"


class Standing(NamedTuple):
    """What it means to a unit that a source would try now."""

    kind: str
    """`alive`; `blocked`: this source is not let in; `dead`: nobody is."""
    wait_until: float
    """0: may be tried; with `blocked` and `dead` then by one attempt, as a probe."""


def reached(outcome: RecipientOutcome) -> bool | None:
    """Does an outcome show that the site answers? None: it shows neither (no DNS answer, a connection lost later)."""
    if outcome.code:
        return True
    return False if outcome.phase == phases.CONNECT and outcome.enhanced == "4.4.1" else None


def observe(state: SiteHealth, site: Site, contact: Contact) -> tuple[SiteHealth, Change | None]:
    """The health of `site` after a contact."""
    return _failed(state, site, contact) if contact.failed else _answered(state, site, contact)


def standing(state: SiteHealth, source: str, now: float) -> Standing:
    """May `source` try the site at `now`?"""
    if state.dead_since:
        return Standing(DEAD, state.probe_at if now < state.probe_at else 0.0)
    mine = _of(state, source)
    if mine is None or mine.rounds < ROUNDS:
        return Standing(ALIVE, 0.0)
    return Standing(BLOCKED, mine.probe_at if now < mine.probe_at else 0.0)


def _answered(state: SiteHealth, site: Site, contact: Contact) -> tuple[SiteHealth, Change | None]:
    if state.dead_since:
        if contact.at <= max(one.failed_at for one in state.failing):
            return state, None
        change = Change(f"{site.name} answers again", f"it answered {contact.source}", 0.0, "")
        return SiteHealth(answered_at=contact.at), change
    if not any(one.since < contact.at for one in state.failing):
        return state, None
    state = msgspec.structs.replace(state, answered_at=max(state.answered_at, contact.at))
    mine = _of(state, contact.source)
    if mine is None or contact.at <= mine.failed_at:
        return state, None
    state = msgspec.structs.replace(state, failing=_others(state, contact.source))
    if mine.rounds < ROUNDS:
        return state, None
    return state, Change(f"{site.name} lets {mine.source} in again", "it answered", 0.0, "")


def _failed(state: SiteHealth, site: Site, contact: Contact) -> tuple[SiteHealth, Change | None]:
    mine = _of(state, contact.source) or Failing(contact.source, (), 0, 0.0, 0.0, contact.at)
    old = contact.at <= max(mine.failed_at, state.answered_at) or contact.started_at < mine.round_at
    if old or len(_others(state, contact.source)) >= MAX_SOURCES:
        return state, None
    hosts = frozenset(mine.hosts) | (frozenset(contact.failed) & site.hosts)
    if not hosts >= site.hosts:
        mine = msgspec.structs.replace(mine, hosts=tuple(sorted(hosts))[:MAX_HOSTS], failed_at=contact.at)
        return msgspec.structs.replace(state, failing=(*_others(state, mine.source), mine)), None
    rounds = min(mine.rounds + 1, ROUNDS)
    before = mine
    mine = msgspec.structs.replace(mine, hosts=(), rounds=rounds, failed_at=contact.at, round_at=contact.at)
    if rounds == ROUNDS:
        wait = _next_wait(mine.wait_seconds, mine.probe_at, contact)
        mine = msgspec.structs.replace(mine, wait_seconds=wait, probe_at=max(mine.probe_at, contact.at + wait))
    state = msgspec.structs.replace(state, failing=(*_others(state, mine.source), mine))
    return _judged(state, site, contact, news=before.rounds < rounds == ROUNDS)


def _judged(state: SiteHealth, site: Site, contact: Contact, news: bool) -> tuple[SiteHealth, Change | None]:
    # After a whole round of failures. `news`: it is the last one that was missing.
    if state.dead_since:
        if contact.started_at < state.probe_at:
            return state, None
        wait = _next_wait(state.wait_seconds, state.probe_at, contact)
        return msgspec.structs.replace(state, wait_seconds=wait, probe_at=contact.at + wait), None
    blocked = sum(one.rounds >= ROUNDS and one.since > state.answered_at for one in state.failing)
    until = contact.at + MIN_WAIT_SECONDS
    if blocked >= min(max(1, site.sources), ENOUGH_SOURCES):
        why = f"no host of it could be connected to, {ROUNDS} times in a row, from {blocked} of {site.sources} sources"
        state = msgspec.structs.replace(state, dead_since=contact.at, probe_at=until, wait_seconds=MIN_WAIT_SECONDS)
        return state, Change(
            f"{site.name} is dead", why, until, "probes after 1, 2, 4 … 15 minutes; any answer revives it"
        )
    if not news:
        return state, None
    why = f"none of its hosts could be connected to, {ROUNDS} times in a row, and other sources were not refused"
    return state, Change(f"{site.name} does not let {contact.source} in", why, until, "one attempt as a probe")


def _next_wait(wait: float, probe_at: float, contact: Contact) -> float:
    if not wait:
        return MIN_WAIT_SECONDS
    return min(wait * 2, MAX_WAIT_SECONDS) if contact.started_at >= probe_at else wait


def _others(state: SiteHealth, source: str) -> tuple[Failing, ...]:
    return tuple([one for one in state.failing if one.source != source])


def _of(state: SiteHealth, source: str) -> Failing | None:
    return next((one for one in state.failing if one.source == source), None)


def encode(state: SiteHealth) -> bytes:
    """The bytes of a state, for a compacted topic."""
    return _encode(state)


def decode(data: bytes) -> SiteHealth:
    """The state in `data`, also of older and newer versions. Raises msgspec.DecodeError or ValidationError."""
    return _decode(data)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SiteHealth).decode
