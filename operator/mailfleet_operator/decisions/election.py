"""Who leads: one Lease, and never two leaders at once, whatever their clocks say.

A challenger takes the lease over only when it has seen no change of it for the whole lease, on its own clock. A leader acts
only for `renew_seconds`, which is less, from the moment at which it *sent* the last renewal that succeeded. Clocks need not
agree; they need to run at the same speed, within the difference of the two.
"""

from __future__ import annotations

from typing import NamedTuple


class Terms(NamedTuple):
    """Seconds."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Seen(NamedTuple):
    """The lease as it was read."""

    version: str
    """Changes with every write; empty: there is no lease."""
    holder: str
    """Empty: nobody, it was given back."""


class Watch(NamedTuple):
    """What one process knows. Times are of its own monotonic clock."""

    version: str | None = None
    since: float = 0.0
    """When it first saw this version."""
    renewed: float | None = None
    """When it sent its last write that succeeded; None: it does not lead."""


CREATE, TAKE, RENEW, WAIT = "create", "take", "renew", "wait"


def look(watch: Watch, seen: Seen, me: str, terms: Terms, now: float) -> tuple[Watch, str]:
    """After reading the lease: what is known now, and what to try. Writes are conditional on the version that was read."""
    if not seen.version:
        return watch._replace(version="", since=now, renewed=None), CREATE
    if seen.version != watch.version:
        watch = watch._replace(version=seen.version, since=now)
    if seen.holder == me:
        # After a restart under the same name: the lease is ours, the work is not yet.
        return watch, RENEW
    watch = watch._replace(renewed=None)
    if not seen.holder or now - watch.since >= terms.lease:
        return watch, TAKE
    return watch, WAIT


def wrote(watch: Watch, sent: float) -> Watch:
    """A write of ours that was sent at `sent` has succeeded."""
    return watch._replace(renewed=sent)


def leads(watch: Watch, terms: Terms, now: float) -> bool:
    """May this process act now?"""
    return watch.renewed is not None and now - watch.renewed < terms.renew


def left(watch: Watch, terms: Terms, now: float) -> float:
    """Seconds for which it may still act."""
    return 0.0 if watch.renewed is None else max(0.0, terms.renew - (now - watch.renewed))
