"""Would more addresses help? Not where the trouble is a tenant's mail: it makes every address look as bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

EASED = 0.8
"""What was refused stays refused until the rate is below so much of its border."""


class Rates(NamedTuple):
    """Of one source or tenant, from 0 to 1, shrunk: a few answers are no rate."""

    name: str
    complaints: float
    bounces: float


class Blame(NamedTuple):
    """Why more addresses do not help."""

    kind: str
    """complaints or bounces"""
    rate: float
    tenant: str
    """Whose rate is highest; empty: no tenant's is above the border."""
    sources: int
    """So many are above the border,"""
    of: int
    """of so many."""

    @property
    def message(self) -> str:
        """For people."""
        whose = f" from tenant {self.tenant}" if self.tenant else f" at {self.sources} of {self.of} sources"
        return f"reputation — more IPs will not help; {self.kind} {percent(self.rate)}{whose}; fix the list"


def percent(rate: float) -> str:
    """`0.34 %`."""
    return f"{rate * 100:.2f} %"


def blame(
    sources: Sequence[Rates], tenants: Sequence[Rates], complaints: float, bounces: float, before: bool
) -> Blame | None:
    """A rate is above its border on a majority of the sources; None: it is not. `before`: so it was at the last look."""
    ease = EASED if before else 1.0
    for kind, border in (("complaints", complaints * ease), ("bounces", bounces * ease)):
        above = [source for source in sources if _rate(source, kind) > border]
        if 2 * len(above) > len(sources):
            worst = max(tenants, key=lambda tenant: _rate(tenant, kind), default=None)
            if worst is not None and _rate(worst, kind) > border:
                return Blame(kind, _rate(worst, kind), worst.name, len(above), len(sources))
            highest = max(_rate(source, kind) for source in above)
            return Blame(kind, highest, "", len(above), len(sources))
    return None


def _rate(rates: Rates, kind: str) -> float:
    return rates.complaints if kind == "complaints" else rates.bounces
