"""The operator's metrics of pools and addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mailfleet_core import metrics
from mailfleet_operator.decisions.conditions import TRUE
from mailfleet_operator.decisions.membership import Belonging
from mailfleet_operator.decisions.resources import Address
from mailfleet_operator.decisions.steering import Steering, View
from mailfleet_operator.shell.cluster import POOL

CHANGES = frozenset({"ScaledUp", "ScaledDown", "SpareTaken", "SpareGivenBack"})
_limited: dict[str, str] = {}
"""Pool → the reason told last."""


def states(addresses: Iterable[Address], whose: Mapping[str, Belonging]) -> None:
    """How many addresses each pool has in each state."""
    counts = Counter((whose[each.name].pool if each.name in whose else "", each.status.state) for each in addresses)
    metrics.OPERATOR_SOURCES.clear()
    for labels, count in counts.items():
        metrics.OPERATOR_SOURCES.labels(*labels).set(count)


def pool(name: str, found: Steering, view: View) -> None:
    """What one look at a pool came to."""
    desired = sum(len(present.held.lanes) for present in found.present.values())
    serving = sum(len(known.ready_lanes & set(found.present[known.address.name].held.lanes)) for known in view.known)
    metrics.OPERATOR_POOL_LANES.labels(name, "wanted").set(desired)
    metrics.OPERATOR_POOL_LANES.labels(name, "ready").set(serving)
    for event in found.events:
        if event.reason in CHANGES:
            metrics.OPERATOR_DECISIONS.labels(name, event.reason, "").inc()
        elif event.kind == POOL:
            metrics.OPERATOR_DECISIONS.labels(name, "Refused", event.reason).inc()
    conditions = (found.pool or {}).get("conditions", [])
    reason = next(
        (each["reason"] for each in conditions if each["type"] == "ScalingLimited" and each["status"] == TRUE), ""
    )
    if _limited.get(name, "") not in ("", reason):
        metrics.OPERATOR_LIMITED.remove(name, _limited[name])
    _limited[name] = reason
    if reason:
        metrics.OPERATOR_LIMITED.labels(name, reason).set(1)
