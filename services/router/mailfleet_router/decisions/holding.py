"""What holds a queued unit now, for people: from the state of its partition to reasons, a place and an estimate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailfleet_core.model import ids, wire
from mailfleet_core.model.wire import Entry
from mailfleet_router.decisions.commands import Hold
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Rule
from mailfleet_router.decisions.shaping import telling
from mailfleet_router.decisions.shaping.site_shape import SiteShape
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.why import (
    WITHOUT_END,
    Answer,
    Line,
    Place,
    Reason,
    Speed,
    Unit,
    compose,
    longest,
    place,
)
from mailfleet_router.decisions.site_queue import (
    ATTEMPTING,
    DEFERRED,
    ENDING,
    FOLDED,
    IN_FLIGHT,
    PARKED,
    READY,
    RESOLVING,
    Held,
    SiteQueue,
)  # fmt: skip

STATES = {
    FOLDED: "waiting", RESOLVING: "resolving", READY: "ready", PARKED: "suspended", DEFERRED: "deferred",
    ATTEMPTING: "in flight", IN_FLIGHT: "in flight", ENDING: "being settled",
}  # fmt: skip


def answer(partition: Partition, held: Held, pace: Speed, router: str, now: float) -> Answer:
    """Why `held` waits, with the pace at which its site was served lately and the instance that owns the partition."""
    entry = wire.decode(Entry, held.raw)
    where = _place(held) if held.state == READY else None
    unit = _unit(partition, held, entry, router)
    return compose(
        unit, list(reasons(partition, held, entry, now)), where, _speed(partition, held, entry, pace, now), now
    )


def reasons(partition: Partition, held: Held, entry: Entry, now: float) -> Iterator[Reason]:
    """Everything that holds the unit."""
    if held.state in (ATTEMPTING, IN_FLIGHT):
        where = f"lane {held.lane} of source {entry.source}"
        yield Reason("sender", f"attempt {held.attempts} is in a sender's hands", where, 0.0, "sender")
        return
    if held.state == ENDING:
        yield Reason("router", "what its last attempt came to is being written", "", 0.0, "router")
        return
    if held.state == FOLDED:
        yield Reason("router", "the new owner of its partition takes it up", "", 0.0, "router")
    if held.state == DEFERRED:
        yield _deferral(partition, held, entry)
    if held.state == RESOLVING:
        name = held.domain.name if held.domain else ""
        yield Reason("dns", f"the DNS is asked where mail for {name} goes", "the DNS", 0.0, "dns")
    if (hold := partition.scheduler.hold_on(held)) is not None:
        yield _suspended(hold)
    for reason in _of_site(partition, held, entry, now):
        # What a unit finds used up now says nothing of one that is due later.
        if held.state != DEFERRED or reason.until > held.due_at or reason.by in WITHOUT_END:
            yield reason


def _deferral(partition: Partition, held: Held, entry: Entry) -> Reason:
    last = entry.last
    if held.reported.startswith("pool "):
        return Reason("source", held.reported, partition.policy.where("pool", held.pool), held.due_at, "router")
    if last is not None and last.phase == "dns":
        return Reason("dns", said(entry), f"the DNS; then retry_seconds of stream {held.stream}", held.due_at, "dns")
    if not entry.attempts or last is None:
        return Reason("deferral", "it is offered again", "", held.due_at, "router")
    text = f"attempt {entry.attempts} was put off by the receiver: {said(entry)}"
    where = f"retry_seconds of stream {held.stream}"
    if held.site is not None and held.site.shape is not None:
        where = telling.next_try(partition.shaper, _facts(partition, held.site.shape, held, entry), last)
    return Reason("deferral", text, where, held.due_at, "router")


def _of_site(partition: Partition, held: Held, entry: Entry, now: float) -> Iterator[Reason]:
    site = held.site
    if site is None or held.state not in (READY, PARKED, DEFERRED):
        return
    if (rule := site.rule) is not None:
        if site.in_flight >= rule.site_window:
            text = f"{site.in_flight} units of the site are in senders' hands, which is its window"
            yield Reason("window", text, f"{_route(rule)}: site_window", 0.0, "router")
        if rule.site_messages_per_second and site.bucket.tokens < 1.0 and site.waking:
            text = f"the site's limit of {rule.site_messages_per_second:g} messages per second"
            yield Reason("rate", text, f"{_route(rule)}: site_messages_per_second", 0.0, "router")
    if site.shape is not None:
        facts = _facts(partition, site.shape, held, entry)
        without = {source: _suspended(hold) for source, hold in partition.commands.sources(held).items()}
        yield from telling.why(partition.shaper, site.shape, facts, now, without)
        asked = partition.shaper.asked(entry, site.shape, facts.domain)
        if asked and held.state != DEFERRED:
            text = f"the site greylists: it expects source {asked} again, and no other"
            yield Reason("greylisting", text, "the last reply", 0.0, "router")


def _suspended(hold: Hold) -> Reason:
    return Reason("suspension", hold.reason, f"{hold.by}, by command", hold.until, "postmaster")


def _facts(partition: Partition, shape: SiteShape, held: Held, entry: Entry) -> Facts:
    domain, campaign = held.domain.name if held.domain else "", entry.unit.envelope.campaign
    pool = partition.commands.pool(held)
    return partition.shaper.facts(shape, held.tenant, held.stream, pool, domain, campaign)


def summary(partition: Partition, site: SiteQueue, now: float) -> str:
    """Why the mail of a site waits, in one sentence: what holds what is ready, else the last answer."""
    held = next((held for held in site.ready if site.wants(held)), None)
    if held is None:
        return site.why
    found = list(reasons(partition, held, wire.decode(Entry, held.raw), now))
    return longest(found)[0].text if found else site.why


def window(site: SiteQueue) -> dict[str, Any]:
    """How many units of a site are in senders' hands, how many may be, and the rate that the settings give it; JSON-ready."""
    rule = site.rule
    return {
        "in_flight": site.in_flight,
        "most": rule.site_window if rule else 0,
        "messages_per_second": rule.site_messages_per_second if rule else 0.0,
        "where": _route(rule) if rule else "",
        "waits_for_rate": site.waking,
    }


def _route(rule: Rule) -> str:
    return f"[[route]] {rule.route.name}" if rule.route.name else "the default of [[route]]"


def said(entry: Entry) -> str:
    """The last answer that a unit got."""
    last = entry.last
    return " ".join(str(part) for part in (last.code, last.enhanced, last.text) if part) if last else ""


def _unit(partition: Partition, held: Held, entry: Entry, router: str) -> Unit:
    return Unit(
        unit_id=ids.text(held.key), state=STATES[held.state], site=held.site.name if held.site else "",
        domain=held.domain.name if held.domain else "", partition=partition.number, router=router, tenant=held.tenant,
        stream=held.stream, pool=held.pool, campaign=entry.unit.envelope.campaign,
        recipients=tuple(each.address for each in entry.unit.recipients),
        attempts=held.attempts, since=held.since, due_at=held.due_at, accepted_at=held.accepted_at,
        expires_at=held.expires_at, last=said(entry),
    )  # fmt: skip


def _place(held: Held) -> Place | None:
    site = held.site
    if site is None:
        return None
    lines, mine, index = [], None, 0
    for priority, flow in site.ready.flows():
        queues = list(flow.queues.values())
        own = next((queue for queue in queues if flow.tenant == held.tenant and held in queue.items), None)
        turning = [queue for queue in queues if not queue.resting or queue is own]
        length = sum(len(queue.items) for queue in turning)
        lines.append(Line(priority, flow.tenant, flow.weight, length, flow.class_.floor))
        if own is not None:
            at = next(number for number, each in enumerate(own.items) if each is held)
            # The tenant's other mail of this priority, which the policy treats otherwise, takes turns with it.
            mine, index = priority, at + sum(min(at, len(other.items)) for other in turning if other is not own)
    if mine is None:
        return None
    found = place(lines, mine, held.tenant, index)
    return Place(min(found.ahead, len(site.ready) - 1), len(site.ready))


def _speed(partition: Partition, held: Held, entry: Entry, pace: Speed, now: float) -> Speed:
    site = held.site
    limit = site.rule.site_messages_per_second if site and site.rule else 0.0
    if limit and (not pace.per_second or limit < pace.per_second):
        pace = Speed(limit, "which is the site's limit")
    if site is None or site.shape is None:
        return pace
    facts = _facts(partition, site.shape, held, entry)
    return telling.speed(partition.shaper, site.shape, facts, pace, now)
