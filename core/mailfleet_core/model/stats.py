"""What the owner of a queue partition tells whoever steers the fleet: the records of `mail.stats`.

One record for each partition, under `partition|<number>`; `model.fleet` sums them up. They are news, not state: nothing that
routes mail reads them, and a lost one is made up for by the next.
"""

from __future__ import annotations

import msgspec

from mailfleet_core.model import reputation
from mailfleet_core.model.reputation import Tuning
from mailfleet_core.model.wire import Malformed, Struct

MOST_SOURCES, MOST_TENANTS, MOST_TROUBLES = 1000, 500, 200
"""In one record, so that it stays far below what a log takes; of tenants those with most complaints and bounces, then those
with most mail."""

PAUSED, SLOWED, PROBING, QUARANTINE = "paused", "slowed", "probing", "quarantine"
WORST_FIRST = (QUARANTINE, PAUSED, PROBING, SLOWED)
NONE = (0.0,) * 6
NEVER = (0,) * 6


class PoolStats(Struct, frozen=True):
    """The mail of one egress pool in one partition."""

    pool: str
    waiting: int
    """Units in nobody's hands, those that wait for their retry time among them."""
    ready: int
    """Of them, those that may go now as far as retry times and suspensions say: they wait for a source or a limit."""
    oldest_ready_at: float
    """Since when the oldest of these is ready, as far as their owner knows; 0: there is none."""
    per_second: float
    """Attempts begun, decaying over a minute."""


class SourceStats(Struct, frozen=True):
    """One egress source in one partition."""

    source: str
    in_flight: int
    """Units in the hands of its senders."""
    per_second: float
    """Attempts begun, decaying over a minute."""
    sent_today: int
    """With a `day_cap`: what counts against it. Without: attempts of this UTC day that the present owner has begun."""
    day_cap: int = -1
    """What its warm-up allows today, over all providers at which it warms up; -1: it warms up nowhere."""
    weights: tuple[float, ...] = NONE
    """Its answers by kind (`model.reputation`), decayed, over all sites."""
    seen: tuple[int, ...] = NEVER
    """The same undecayed."""
    worst: int = reputation.GOOD
    """The worst state it is in at any one site."""


class TenantStats(Struct, frozen=True):
    """The mail of one tenant in one partition."""

    tenant: str
    weights: tuple[float, ...] = NONE
    """Its answers by kind, decayed."""
    seen: tuple[int, ...] = NEVER
    worst: int = reputation.GOOD
    """The worst state of any one of its streams."""


class Trouble(Struct, frozen=True):
    """What back-off or reputation holds now."""

    source: str
    """Empty: every source."""
    site: str
    """Empty: every site."""
    state: str
    """paused, slowed, probing or quarantine."""
    until: float
    """When that ends or is looked at again; 0: not by time alone."""
    rule: str
    """The response rule; `reputation` where the score did it, `no connection` where the site's hosts do not answer."""
    reply: str
    """What the site said, or why."""
    since: float
    """0: not known."""


class Stats(Struct, frozen=True):
    """A record of `mail.stats`."""

    partition: int
    router: str
    at: float
    pools: tuple[PoolStats, ...] = ()
    sources: tuple[SourceStats, ...] = ()
    tenants: tuple[TenantStats, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    """Worst first."""
    epoch: int = 0
    """Of the owner: what an older one says later does not count."""
    partitions: int = 0
    """How many queue partitions there are, so that a reader knows whether it has heard of all."""
    tuning: Tuning = reputation.USUAL
    """How the owner's policy judges counts."""


_decoder = msgspec.msgpack.Decoder(Stats)


def key(partition: int) -> bytes:
    """The key of a partition's record."""
    return b"partition|%d" % partition


def encode(stats: Stats) -> bytes:
    """The value of a record."""
    return msgspec.msgpack.encode(stats)


def decode(value: bytes) -> Stats:
    """What a record says. Raises Malformed."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"not stats: {error}") from error


def worst_first(trouble: Trouble) -> tuple[int, float, str, str]:
    """The order of troubles."""
    rank = WORST_FIRST.index(trouble.state) if trouble.state in WORST_FIRST else len(WORST_FIRST)
    return rank, -trouble.until, trouble.source, trouble.site
