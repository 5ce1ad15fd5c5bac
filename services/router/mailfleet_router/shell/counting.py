"""Counts of the decisions → metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from mailfleet_core import metrics

# Looking up a metric by its labels costs more than counting; there are few of them.
_recipients = cache(metrics.RECIPIENTS.labels)
_streams: dict[str, metrics.NotedHistogram] = {}


def count(counts: Iterable[tuple[str, str, str, int]]) -> None:
    """Add what a partition counted (see `Outbox.counts`)."""
    recipients: Counter[tuple[Any, ...]] = Counter()
    for what, first, second, number in counts:
        if what == "recipients":
            recipients[first, second] += number
        elif what == "seconds":
            if first not in _streams:
                _streams[first] = metrics.DELIVERY_SECONDS.labels(first)
            _streams[first].note(number / 1000)
        elif what == "stale":
            metrics.STALE_RECORDS.labels(first).inc(number)
        elif what == "in_doubt":
            metrics.IN_DOUBT.inc(number)
    for labels, number in recipients.items():
        _recipients(*labels).inc(number)


def tell() -> None:
    """Show what was only noted until now."""
    for seconds in _streams.values():
        seconds.tell()
