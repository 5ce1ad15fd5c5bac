"""Instants as Kubernetes writes them (RFC 3339, whole seconds) and as we count them (seconds since 1970)."""

from __future__ import annotations

from datetime import UTC, datetime

DAY_SECONDS = 86400


def text_of(at: float) -> str:
    """`2026-11-22T10:00:00Z`; empty for 0, which means never."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def instant(text: str | None) -> float:
    """Seconds since 1970; 0 for nothing, and for what is no instant."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def left_of_day(now: float) -> float:
    """Seconds until the next UTC day begins; more than 0."""
    return DAY_SECONDS - now % DAY_SECONDS


def micro_text_of(at: float) -> str:
    """As a Lease wants it: `2026-11-22T10:00:00.000000Z`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
