"""Counts of the decisions → metrics, five times a second: prometheus_client takes eleven calls and three locks for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mailfleet_core import metrics
from mailfleet_core.bus import topics

_recipients: Counter[tuple[str, str]] = Counter()
_streams: dict[str, metrics.NotedHistogram] = {}
metrics.STALE_RECORDS.labels(topics.QUEUE)  # from the start, so that the first one is a change


def count(counts: Iterable[tuple[str, str, str, int]]) -> None:
    """Note what a partition counted (see `Outbox.counts`) for the next `tell`."""
    for what, first, second, number in counts:
        if what == "recipients":
            _recipients[first, second] += number
        elif what == "seconds":
            if first not in _streams:
                _streams[first] = metrics.DELIVERY_SECONDS.labels(first)
            _streams[first].note(number / 1000)
        elif what == "stale":
            metrics.STALE_RECORDS.labels(first).inc(number)
        elif what == "in_doubt":
            metrics.IN_DOUBT.inc(number)


def tell() -> None:
    """Show what was noted."""
    for labels, number in _recipients.items():
        metrics.RECIPIENTS.labels(*labels).inc(number)
    _recipients.clear()
    for seconds in _streams.values():
        seconds.tell()
