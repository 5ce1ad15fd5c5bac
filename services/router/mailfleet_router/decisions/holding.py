"""What holds a queued unit now, for people: from the state of its partition to reasons, a place and an estimate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailfleet_core.model import ids, wire
from mailfleet_core.model.wire import Entry
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Rule
from mailfleet_router.decisions.shaping.why import Answer, Place, Reason, Speed, Unit, compose
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
    return compose(_unit(partition, held, entry, router), list(reasons(partition, held, entry, now)), where,
                   _speed(held.site, pace), now)  # fmt: skip


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
        yield _deferral(held, entry)
    if held.state == RESOLVING:
        name = held.domain.name if held.domain else ""
        yield Reason("dns", f"the DNS is asked where mail for {name} goes", "the DNS", 0.0, "dns")
    if (hold := partition.scheduler.hold_on(held)) is not None:
        yield Reason("suspension", hold.reason, f"{hold.by}, with mailfleet suspend", hold.until, "postmaster")
    if held.site is not None and held.state in (READY, PARKED, DEFERRED):
        yield from _of_site(held.site)


def _deferral(held: Held, entry: Entry) -> Reason:
    last = entry.last
    if held.reported.startswith("pool "):
        return Reason("source", held.reported, f"[[pool]] {held.pool} in the settings", held.due_at, "router")
    if last is not None and last.phase == "dns":
        return Reason("dns", said(entry), f"the DNS; then retry_seconds of stream {held.stream}", held.due_at, "dns")
    if not entry.attempts or last is None:
        return Reason("deferral", "it is offered again", "", held.due_at, "router")
    text = f"attempt {entry.attempts} was put off by the receiver: {said(entry)}"
    return Reason("deferral", text, f"retry_seconds of stream {held.stream}", held.due_at, "router")


def _of_site(site: SiteQueue) -> Iterator[Reason]:
    rule = site.rule
    if rule is None:
        return
    name = _route(rule)
    if site.in_flight >= rule.site_window:
        text = f"{site.in_flight} units of the site are in senders' hands, which is its window"
        yield Reason("window", text, f"{name}: site_window", 0.0, "router")
    if site.waking:
        text = f"the site's limit of {rule.site_messages_per_second:g} messages per second"
        yield Reason("rate", text, f"{name}: site_messages_per_second", 0.0, "router")


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
        stream=held.stream, pool=held.pool, recipients=tuple(each.address for each in entry.unit.recipients),
        attempts=held.attempts, since=held.since, due_at=held.due_at, accepted_at=held.accepted_at,
        expires_at=held.expires_at, last=said(entry),
    )  # fmt: skip


def _place(held: Held) -> Place | None:
    if held.site is None:
        return None
    ready = [each for each in held.site.ready if each.state == READY and each.site is held.site]
    return Place(next((index for index, each in enumerate(ready) if each is held), len(ready)), len(ready))


def _speed(site: SiteQueue | None, pace: Speed) -> Speed:
    limit = site.rule.site_messages_per_second if site and site.rule else 0.0
    if limit and (not pace.per_second or limit < pace.per_second):
        return Speed(limit, "which is the site's limit")
    return pace
