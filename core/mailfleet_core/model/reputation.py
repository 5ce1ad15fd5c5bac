"""What the answers to a source say of it: a score from 0 to 100 and a state, from decayed counts by kind.

    rate(x, n) = (x + m * prior) / (n + m)              shrunk, so that few answers cannot trigger anything
    score      = 100 * exp(-1.25 * sum(max(0, rate - prior) / (limit - prior)))

The limits are where large receivers and platforms draw their lines: 10 % hard bounces stop a sender at Amazon SES (5 % are
reviewed), 0.3 % complaints at Gmail and Yahoo (0.1 % are warned of); docs/reputation.md has the sources. Priors, their weights
and the limits of deferrals and block replies are our own design, and so is the formula.

Counts of two owners are summed before they are judged: a score of sums is not the mean of scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mailfleet_core.model.wire import Struct

DELIVERED, DEFERRED, BOUNCED, OTHER, BLOCKED, COMPLAINED = range(6)
"""What is counted. DELIVERED is the denominator of complaints: where sites are summed up, only for sites that report them.
OTHER is an answer that says nothing against us: delivered where complaints are not reported, refused for its content."""

GOOD, WATCH, SLOW, QUARANTINE = range(4)
STATES = ("good", "watch", "slow", "quarantine")

ATTEMPTS = 10_000.0
"""More answers than so many push out older ones."""

CLEAN_SECONDS = 6 * 3600.0
"""A state is left only after as long without a complaint or a block reply,"""
MARGIN = 10.0
"""and with a score so far above the border under which it was entered."""

BORDERS = (80.0, 60.0, 40.0)
"""WATCH, SLOW and QUARANTINE are for scores below these (SparkPost's health score calls 80 good; the other borders are our
design)."""
_STEEPNESS = 1.25


class Term(NamedTuple):
    """One kind of bad answer in the formula."""

    name: str
    kind: int
    prior: float
    weight: float
    """How many answers the prior counts as."""
    limit: float
    least: int
    """Fewer than so many of the kind (undecayed) never change a state."""


TERMS = (
    Term("deferrals", DEFERRED, 0.03, 200.0, 0.30, 10),
    Term("hard bounces", BOUNCED, 0.01, 200.0, 0.10, 10),
    Term("block replies", BLOCKED, 0.001, 500.0, 0.05, 10),
    Term("complaints", COMPLAINED, 0.0002, 2000.0, 0.003, 3),
)


class Tuning(NamedTuple):
    """What a policy may set."""

    terms: tuple[Term, ...] = TERMS
    """In the order of TERMS."""
    borders: tuple[float, ...] = BORDERS
    margin: float = MARGIN
    clean_seconds: float = CLEAN_SECONDS

    def upper(self, state: int) -> float:
        """A state is for scores below this."""
        return self.borders[state - 1] if state else math.inf


USUAL = Tuning()
"""As shipped."""


class Reading(Struct, frozen=True):
    """A score and everything it was made of."""

    score: float
    acting: float
    """The score from those terms only of which enough was seen to act upon."""
    rates: tuple[float, ...]
    """Shrunk, in the order of TERMS."""
    weights: tuple[float, ...]
    """By kind, decayed."""
    seen: tuple[int, ...]
    """By kind, undecayed."""


def read(weights: Sequence[float], seen: Sequence[int], tuning: Tuning = USUAL) -> Reading:
    """What counts by kind say: `weights` decayed to one instant, `seen` undecayed."""
    answered = sum(weights[:BLOCKED])
    if answered > ATTEMPTS:  # the sum of several keys
        weights = [weight * ATTEMPTS / answered for weight in weights]
        answered = ATTEMPTS
    # A block reply is no answer to the recipients: were it one, it would dilute the other rates.
    of = {BLOCKED: answered + weights[BLOCKED], COMPLAINED: weights[DELIVERED]}
    rates = tuple(
        (weights[term.kind] + term.weight * term.prior) / (of.get(term.kind, answered) + term.weight)
        for term in tuning.terms
    )
    excess = [
        max(0.0, rate - term.prior) / (term.limit - term.prior) for rate, term in zip(rates, tuning.terms, strict=True)
    ]
    enough = [e for e, term in zip(excess, tuning.terms, strict=True) if seen[term.kind] >= term.least]
    return Reading(_score(excess), _score(enough), rates, tuple(weights), tuple(seen))


def state_of(acting: float, tuning: Tuning = USUAL) -> int:
    """The state that a score fits, whatever was before."""
    return max(state for state in range(4) if acting < tuning.upper(state))


def worst_of(reading: Reading, tuning: Tuning = USUAL) -> str:
    """The rates above their priors, worst first, for people."""
    found = sorted(
        (-(rate - term.prior) / (term.limit - term.prior), f"{term.name} {rate:.2%}")
        for rate, term in zip(reading.rates, tuning.terms, strict=True)
        if rate > term.prior
    )
    return ", ".join(text for _, text in found) or "nothing against it"


def _score(excess: list[float]) -> float:
    return 100.0 * math.exp(-_STEEPNESS * sum(excess))
