"""Sections of the policy file → what the decisions take: warm-up plans and how reputation is judged."""

from __future__ import annotations

import msgspec

from mailfleet_router.decisions.shaping import reputation, warmup
from mailfleet_router.decisions.shaping.reputation import Tuning
from mailfleet_router.decisions.shaping.schema import Reputation, Term, Traffic, Warmup
from mailfleet_router.decisions.shaping.values import Refusal, fits, seconds

TERM_KEYS = {"deferrals": "deferrals", "hard bounces": "hard_bounces", "block replies": "block_replies",
             "complaints": "complaints"}  # fmt: skip
"""Name of a term in the formula → key in the file."""


def plan(item: Warmup) -> warmup.Plan:
    """The plan that an item of `warmup` means."""
    shipped = warmup.PLANS.get(item.name, warmup.Plan(item.name, ()))
    return warmup.Plan(
        name=item.name,
        day_caps=item.day_caps or shipped.day_caps,
        hour_share=shipped.hour_share if item.hour_share is None else item.hour_share,
        citation=item.citation if item.citation or item.day_caps else shipped.citation,
    )


def plan_of(traffic: Traffic, source: str) -> warmup.Plan | None:
    """The plan that `source` goes through: the first that names it; None: it is not new."""
    found = (item for item in traffic.warmup if any(fits(pattern, source) for pattern in item.sources))
    return next((plan(item) for item in found), None)


def plan_named(traffic: Traffic, name: str) -> warmup.Plan | None:
    """The plan of that name, of this policy or a shipped one."""
    own = next((plan(item) for item in traffic.warmup if item.name == name), None)
    return own or warmup.PLANS.get(name)


def warmup_refusal(item: Warmup) -> Refusal | None:
    """Why an item of `warmup` is no plan."""
    if item.day_caps or item.name in warmup.PLANS:
        return None
    known = ", ".join(sorted(warmup.PLANS))
    return Refusal(("name",), f"{item.name!r} is no shipped plan ({known}): write its day_caps")


def tuning(section: Reputation) -> Tuning:
    """How reputation is judged by this policy."""
    usual = reputation.USUAL
    return Tuning(
        terms=tuple(_term(term, getattr(section, TERM_KEYS[term.name])) for term in usual.terms),
        borders=tuple(
            usual_border if border is None else border
            for usual_border, border in zip(usual.borders, _borders(section), strict=True)
        ),
        margin=usual.margin if section.margin is None else section.margin,
        clean_seconds=usual.clean_seconds if section.clean is None else seconds(section.clean),
    )


def reputation_refusal(section: Reputation) -> Refusal | None:
    """What in the section contradicts itself, or what is shipped."""
    judged = tuning(section)
    for term in judged.terms:
        if term.prior >= term.limit:
            text = f"the prior ({term.prior:g}) must be less than the limit ({term.limit:g})"
            return Refusal((TERM_KEYS[term.name],), text)
    watch, slow, quarantine = judged.borders
    if not watch >= slow >= quarantine:
        text = f"watch_below ({watch:g}), slow_below ({slow:g}) and quarantine_below ({quarantine:g}) must not grow"
        return Refusal((), text)
    if watch + judged.margin > 100:
        text = f"no score is {watch + judged.margin:g}: watch_below and margin together must be 100 at most, or it never ends"
        return Refusal(("margin",), text)
    return None


def _borders(section: Reputation) -> tuple[float | None, ...]:
    return section.watch_below, section.slow_below, section.quarantine_below


def _term(usual: reputation.Term, given: Term) -> reputation.Term:
    return usual._replace(**msgspec.to_builtins(given))
