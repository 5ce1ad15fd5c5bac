"""Conditions as Kubernetes knows them: a type, a status of three values, a reason for programs, a message for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mailfleet_operator.decisions.times import text_of

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
MOST_CHARACTERS = 1000
"""Of a message: replies of strangers end up in it."""


class Verdict(NamedTuple):
    """What is known of one thing."""

    status: str
    reason: str
    message: str = ""


def merged(
    before: Iterable[Mapping[str, Any]], verdicts: Mapping[str, Verdict], generation: int, now: float
) -> list[dict[str, Any]]:
    """The conditions of a status: as told, and the instant of the last change of each kept where its status is the same."""
    known = {condition.get("type"): condition for condition in before}
    return [_condition(kind, verdict, known.get(kind), generation, now) for kind, verdict in sorted(verdicts.items())]


def _condition(
    kind: str, verdict: Verdict, before: Mapping[str, Any] | None, generation: int, now: float
) -> dict[str, Any]:
    same = before is not None and before.get("status") == verdict.status
    changed_at = before.get("lastTransitionTime") if before is not None and same else text_of(now)
    return {
        "type": kind,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message[:MOST_CHARACTERS],
        "lastTransitionTime": changed_at,
        "observedGeneration": generation,
    }


def status_of(conditions: Iterable[Mapping[str, Any]], kind: str) -> str:
    """The status of the condition `kind`; Unknown when there is none."""
    return next((str(each.get("status")) for each in conditions if each.get("type") == kind), UNKNOWN)
