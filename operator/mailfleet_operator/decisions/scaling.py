"""How many senders each source of a pool has, and when a spare is taken: by reputation × backlog.

    wanted = (ready / target + per second) / what a sender is counted on for, shared by the sources that may have more

More senders come only where the present ones are busy: what waits for a receiver's limit goes no faster by more of them. A
slow source has the fewest, one in quarantine one for its probes or none, one that warms up the fewest: its cap is what
holds it. A spare is taken when the pool has lost a source, when a site holds some of its sources, or when everything that
warms up has used its day's allowance. Where a tenant's mail is the trouble, or a site holds most of the sources, nothing is
added, and it is said why.

Without fresh statistics everything stays as it is. Lanes of one source change once in a cool-down, so do spares of a pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN, Verdict
from mailfleet_operator.decisions.life import ACTIVE, PENDING, PREFLIGHT, QUARANTINED, SENDING, SLOW, WARMING
from mailfleet_operator.decisions.refusal import Blame, Rates, blame
from mailfleet_operator.decisions.resources import PoolSpec, share

BUSY = 0.5
"""More senders come where the present ones do so much of what they are counted on for."""
CALM = 1.25
"""Fewer are enough only if they were enough for so much more."""
HOLDING = frozenset({"paused", "quarantine"})
"""Troubles in which nothing goes from a source to a site."""


class Source(NamedTuple):
    """A source of the pool, as it is."""

    name: str
    state: str
    lanes: int
    lanes_changed_at: float = 0.0
    spare: bool = False
    per_second: float = 0.0
    allowance: float | None = None
    """Messages that its warm-up still allows today; None: it is not limited."""
    rates: Rates | None = None
    """None: it has no history."""
    failing: bool = False
    """Something is definitely wrong with it, or it is not wanted."""

    @property
    def lost(self) -> bool:
        """It will not send without a change; one whose preflight is under way may."""
        return self.state not in SENDING and (self.failing or self.state not in (PENDING, PREFLIGHT))


class Spare(NamedTuple):
    """One that the pool has taken."""

    name: str
    taken_at: float
    needed_at: float
    why: str = ""


class Demand(NamedTuple):
    """What waits for the pool; of fresh statistics only."""

    waiting: int = 0
    ready: int = 0
    per_second: float = 0.0


class Holding(NamedTuple):
    """A site lets nothing of a source in."""

    source: str
    site: str
    since: float
    until: float


class Memory(NamedTuple):
    """What the pool's status remembers."""

    shortage_since: float = 0.0
    """0: there is none."""
    last_spare_at: float = 0.0
    spares: tuple[Spare, ...] = ()
    refused: bool = False
    """At the last look, for a tenant's mail."""


class View(NamedTuple):
    """A pool and its demand at one moment."""

    spec: PoolSpec
    memory: Memory
    sources: Sequence[Source]
    demand: Demand | None
    """None: there are no fresh statistics."""
    tenants: Sequence[Rates] = ()
    holdings: Sequence[Holding] = ()
    """Those that have lasted, or will last, as long as `spareAfterSeconds`."""
    fit_spares: Sequence[str] = ()
    """Names of the spec's spares that passed preflight and are nobody's, in order."""


class Plan(NamedTuple):
    """What is to be."""

    lanes: Mapping[str, int]
    """Of each source."""
    memory: Memory
    limited: Verdict
    """The condition ScalingLimited."""
    take: str = ""
    """A spare to take; it is in the memory already."""
    give_back: str = ""
    """And one to give back, which is not."""
    why: str = ""
    """The inputs, for the Event."""
    wanted: int = 0
    """Senders that the backlog asks for, whatever bounds it."""


def plan(view: View, now: float) -> Plan:
    """Lanes of all sources, spares, and what limits the pool."""
    if view.spec.paused:
        return _as_is(view, Verdict(UNKNOWN, "Paused", "the pool is paused; everything stays as it is"))
    if view.spec.scaling.mode == "Manual":
        return _manual(view)
    if view.demand is None:
        return _as_is(view, Verdict(UNKNOWN, "Fallback", "no fresh statistics; everything stays as it is"))
    return _by_reputation(view, view.demand, now)


def _as_is(view: View, limited: Verdict) -> Plan:
    # What begins to send gets its first lanes all the same, or it would never begin.
    least = {source.name: max(source.lanes, _least(view.spec, source)) for source in view.sources}
    keep = {source.name: least[source.name] if _may_send(view.spec, source) else 0 for source in view.sources}
    return Plan(keep, view.memory, limited)


def _manual(view: View) -> Plan:
    sending = [source.name for source in view.sources if _may_send(view.spec, source)]
    each, rest = divmod(view.spec.replicas or 0, len(sending) or 1)
    lanes = {name: each + (number < rest) for number, name in enumerate(sending)}
    verdict = Verdict(FALSE, "Manual", f"{view.spec.replicas or 0} senders, as spec.replicas says")
    return Plan({source.name: lanes.get(source.name, 0) for source in view.sources}, view.memory, verdict)


def _by_reputation(view: View, demand: Demand, now: float) -> Plan:
    reputation = view.spec.reputation
    known = [source.rates for source in view.sources if source.rates is not None]
    refused = blame(known, view.tenants, share(reputation.complaints), share(reputation.bounces), view.memory.refused)
    wanted = _wanted(view, demand)
    lanes = {source.name: _lanes(view, demand, source, refused is not None, now) for source in view.sources}
    gap = _gap(view, demand)
    memory, take, give_back = _spares(view, gap, refused is not None, now)
    limited = _limited(view, demand, gap, refused, take)
    return Plan(
        lanes, memory._replace(refused=refused is not None), limited, take, give_back, _inputs(demand, gap), wanted
    )


# --- lanes ----------------------------------------------------------------------------------------------------------------


def _may_send(spec: PoolSpec, source: Source) -> bool:
    probes = source.state == QUARANTINED and spec.reputation.on_quarantine == "Probe"
    return source.state in SENDING or probes


def _least(spec: PoolSpec, source: Source) -> int:
    if source.state in SENDING:
        return spec.scaling.min_lanes
    return 1 if _may_send(spec, source) else 0


def _wanted(view: View, demand: Demand, by: float = 1.0) -> int:
    scaling = view.spec.scaling
    rate = (demand.ready / scaling.target_seconds + demand.per_second) * by
    return math.ceil(rate / scaling.messages_per_second_per_lane - 1e-9)


def _lanes(view: View, demand: Demand, source: Source, refused: bool, now: float) -> int:
    """Of one source; as it has, within its cool-down."""
    spec, least = view.spec, _least(view.spec, source)
    if not _may_send(spec, source):
        return 0
    if source.lanes == 0:
        return least
    if now - source.lanes_changed_at < spec.scaling.cooldown_seconds:
        return source.lanes
    if source.state != ACTIVE:
        return least
    sharing = sum(1 for each in view.sources if each.state == ACTIVE)
    more = min(spec.scaling.max_lanes, max(least, math.ceil(_wanted(view, demand) / sharing)))
    fewer = min(spec.scaling.max_lanes, max(least, math.ceil(_wanted(view, demand, CALM) / sharing)))
    if more > source.lanes:
        busy = source.per_second >= BUSY * source.lanes * spec.scaling.messages_per_second_per_lane
        return min(more, 2 * source.lanes) if busy and not refused else source.lanes
    return min(fewer, source.lanes)


# --- spares ---------------------------------------------------------------------------------------------------------------


class _Gap(NamedTuple):
    """How many sources are missing, were there no spares; and what of it spares do not fill."""

    all: int
    open: int
    why: str
    held_up: str = ""
    """A site that holds most of the sources, so that more of them do not help."""


def _gap(view: View, demand: Demand) -> _Gap:
    own = [source for source in view.sources if not source.spare]
    spares = [source for source in view.sources if source.spare]
    lost = [source.name for source in own if source.lost]
    site, held, held_up = _held(view)
    coming = sum(1 for source in spares if not source.lost)
    blocked = sum(1 for source in spares if source.name in held)
    missing = len(lost) + len([name for name in held if name in {source.name for source in own} - set(lost)])
    why = ", ".join(lost) and f"{', '.join(lost)} out of use"
    if held:
        why = "; ".join(filter(None, (why, f"{site} holds {', '.join(sorted(held))}")))
    if not missing and demand.ready and _used_up(view):
        missing, why = len(spares) + 1, "today's warm-up allowance is used up"
    return _Gap(missing, max(0, missing - coming + blocked), why, held_up)


def _held(view: View) -> tuple[str, frozenset[str], str]:
    """The site that holds most sources, those, and the site if they are too many of the pool for others to help."""
    sending = {source.name for source in view.sources if source.state in SENDING}
    sites: dict[str, set[str]] = {}
    for holding in view.holdings:
        if holding.source in sending:
            sites.setdefault(holding.site, set()).add(holding.source)
    most = [site for site, names in sites.items() if len(sending) > 1 and 2 * len(names) > len(sending)]
    some = {site: names for site, names in sites.items() if site not in most}
    site = max(sorted(some), key=lambda each: len(some[each]), default="")
    return site, frozenset(some.get(site, ())), min(most, default="")


def _used_up(view: View) -> bool:
    sending = [source for source in view.sources if source.state in SENDING]
    return bool(sending) and all(source.allowance is not None and source.allowance < 1 for source in sending)


def _spares(view: View, gap: _Gap, refused: bool, now: float) -> tuple[Memory, str, str]:
    """What is remembered; the spare to take; the one to give back."""
    memory, scaling = view.memory, view.spec.scaling
    since = 0.0 if not gap.open else memory.shortage_since or now
    needed = tuple(
        spare._replace(needed_at=now) if number < gap.all else spare for number, spare in enumerate(memory.spares)
    )
    memory = memory._replace(shortage_since=since, spares=needed)
    if now - memory.last_spare_at < scaling.cooldown_seconds:
        return memory, "", ""
    if gap.open and not refused and view.fit_spares and now - since >= scaling.spare_after_seconds:
        name = view.fit_spares[0]
        taken = (*memory.spares, Spare(name, now, now, gap.why))
        return memory._replace(spares=taken, last_spare_at=now, shortage_since=0.0), name, ""
    for spare in reversed(memory.spares):
        if scaling.release_after_seconds and now - spare.needed_at >= scaling.release_after_seconds:
            kept = tuple(each for each in memory.spares if each.name != spare.name)
            return memory._replace(spares=kept, last_spare_at=now), "", spare.name
    return memory, "", ""


# --- what limits it -------------------------------------------------------------------------------------------------------


def _limited(view: View, demand: Demand, gap: _Gap, refused: Blame | None, take: str) -> Verdict:
    if refused is not None:
        return Verdict(TRUE, "Reputation", refused.message)
    if gap.held_up:
        text = f"{gap.held_up} holds most of the pool's sources — more IPs will not help there; see what it answers"
        return Verdict(TRUE, "SiteRefuses", text)
    if gap.open and not take:
        return _waits(view, gap)
    return _lanes_limited(view, demand)


def _waits(view: View, gap: _Gap) -> Verdict:
    if not view.fit_spares:
        many = f"{gap.open} source{'s' * (gap.open > 1)} missing"
        return Verdict(TRUE, "NoSpare", f"{many} ({gap.why}), and no spare passes preflight")
    return Verdict(TRUE, "CoolDown", f"{gap.why}; a spare is taken when that lasts and the cool-down is over")


def _lanes_limited(view: View, demand: Demand) -> Verdict:
    active = [source for source in view.sources if source.state == ACTIVE]
    have, wanted = sum(source.lanes for source in view.sources), _wanted(view, demand)
    if wanted <= have or not have:
        return Verdict(FALSE, "NotLimited", f"{demand.ready} mails may go, {demand.per_second:.1f} go in a second")
    if any(source.state == WARMING for source in view.sources) and not active:
        return Verdict(
            TRUE, "WarmingUp", f"{demand.ready} mails may go; every source warms up, and its plan is the limit"
        )
    if active and all(source.lanes >= view.spec.scaling.max_lanes for source in active):
        return Verdict(TRUE, "AtMax", f"{wanted} senders are wanted; maxLanes allows {have}")
    if any(source.state in (SLOW, QUARANTINED) for source in view.sources) and not active:
        return Verdict(TRUE, "LowScore", f"{demand.ready} mails may go; every source has a low score")
    load = view.spec.scaling.messages_per_second_per_lane
    if all(source.per_second < BUSY * source.lanes * load for source in active):
        text = f"{demand.ready} mails may go, but the senders are not busy: limits and receivers hold them"
        return Verdict(TRUE, "Limits", text)
    return Verdict(FALSE, "ScalingUp", f"{wanted} senders are wanted, there are {have}")


def _inputs(demand: Demand, gap: _Gap) -> str:
    inputs = f"ready {demand.ready}, waiting {demand.waiting}, {demand.per_second:.1f}/s"
    return f"{inputs}; {gap.why}" if gap.why else inputs


def allowance(sent_today: int, day_cap: int) -> float | None:
    """Messages that a warm-up still allows today; None: it allows any number."""
    return None if day_cap < 0 else max(0.0, float(day_cap - sent_today))
