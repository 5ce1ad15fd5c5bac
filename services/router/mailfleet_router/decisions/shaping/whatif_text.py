"""The report of a replay, for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mailfleet_router.decisions.shaping.whatif import (
    Imposed,
    Matched,
    Queue,
    Report,
    RuleReport,
    ScopeReport,
    SiteReport,
)

MAX_LINES = 20
"""Texts without a rule, and moments of a scope, that are shown."""
WIDTH = 160
"""Letters of a reply that are shown."""


def lines(report: Report) -> tuple[str, ...]:
    """The report, a line each. `before` is the policy that was in force, `after` the one that was tried."""
    return tuple(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.attempts} attempts from {_when(report.since)} to {_when(report.until)}."
    yield report.note
    made = f"before {report.not_made_in_force}, after {report.not_made_tried}"
    yield f"Attempts that would have been held by a pause or for a dead site: {made}."
    yield from _section("Rules", [line for rule in report.rules for line in _rule(rule)])
    yield from _section(
        "Replies that no rule matches after",
        [f"{one.replies} × {one.text[:WIDTH] or '(no text)'}" for one in report.unmatched[:MAX_LINES]],
    )
    yield from _section("Scopes", [line for scope in report.scopes for line in _scope(scope)])
    yield from _section(
        "Limits with a rate",
        [
            f"{'before' if one.policy == 'in_force' else 'after'}: {one.limit}, case {one.case}: {one.over} of "
            f"{one.attempts} attempts put off, by {_span(one.longest_wait_seconds)} at most"
            for one in report.limits
        ],
    )
    yield from _section("Sites", [line for site in report.sites for line in _site(site)])


def _section(title: str, body: list[str]) -> Iterator[str]:
    yield f"{title}:"
    for line in body or ["none"]:
        yield f"  {line}"


def _rule(rule: RuleReport) -> Iterator[str]:
    if rule.in_force == rule.tried:
        yield f"{rule.rule}: {_matched(rule.tried)}, as before"
    else:
        yield f"{rule.rule}: before {_matched(rule.in_force)}; after {_matched(rule.tried)}"
    for sample in rule.samples:
        said = " ".join(str(part) for part in (sample.code, sample.enhanced, sample.text) if part)
        yield f"    {_when(sample.at)} {sample.source} to {sample.site}, {sample.phase or 'no phase'}: {said[:WIDTH]}"


def _matched(matched: Matched) -> str:
    if not matched.replies:
        return "no reply"
    followed = ", ".join(f"{count} {what}" for what, count in matched.followed.items())
    return f"{matched.replies} replies ({followed})"


def _scope(scope: ScopeReport) -> Iterator[str]:
    if scope.in_force == scope.tried:
        yield f"{scope.scope}: {_imposed(scope.tried)}, as before"
    else:
        yield f"{scope.scope}: before {_imposed(scope.in_force)}; after {_imposed(scope.tried)}"
    gap = _span(scope.recorded.longest_gap_seconds)
    yield f"    really: at most {gap} without an attempt, {scope.recorded.held} times held"
    for moment in (scope.tried.moments or scope.in_force.moments)[:MAX_LINES]:
        until = f" until {_when(moment.until)}" if moment.until else ""
        yield f"    {_when(moment.at)} {moment.what}{until}: {moment.why[:WIDTH]}"


def _imposed(imposed: Imposed) -> str:
    parts = [
        f"slowed {imposed.slowed} times for {_span(imposed.slowed_seconds)}" if imposed.slowed_seconds else "",
        f"paused {imposed.paused + imposed.disabled} times for {_span(imposed.paused_seconds)}"
        f" ({imposed.attempts_meanwhile} attempts were made then)"
        if imposed.paused_seconds
        else "",
        f"dead {imposed.dead} times for {_span(imposed.dead_seconds)}" if imposed.dead else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing"


def _site(site: SiteReport) -> Iterator[str]:
    yield f"{site.site}: {site.arrivals} units came, {site.attempts} attempts, {site.held} times held"
    for name, queue in (("really", site.recorded), ("before", site.in_force), ("after", site.tried)):
        yield f"    {name}: {_queue(queue)}"


def _queue(queue: Queue) -> str:
    half, most = _span(queue.wait_p50_seconds), _span(queue.wait_p99_seconds)
    never = f"; {queue.never} never go" if queue.never else ""
    drained = f"the last one {_span(queue.drain_seconds)} after it came" if queue.drained_at else "none is sent"
    return f"half wait {half} or less, 99 % {most} or less; {drained}{never}"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    """`1 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours / 24:.1f} d"
