"""Counts of the decisions → metrics."""

from __future__ import annotations

from collections.abc import Iterable

from mailfleet_core import metrics


def count(counts: Iterable[tuple[str, str, str, int]]) -> None:
    """Add what a partition counted (see `Outbox.counts`)."""
    for what, first, second, number in counts:
        if what == "recipients":
            metrics.RECIPIENTS.labels(first, second).inc(number)
        elif what == "seconds":
            metrics.DELIVERY_SECONDS.labels(first).observe(number / 1000)
        elif what == "stale":
            metrics.STALE_RECORDS.labels(first).inc(number)
        elif what == "in_doubt":
            metrics.IN_DOUBT.inc(number)
