"""What the importers of other systems' files give back, and the words that both need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from mailfleet_router.decisions.shaping.pattern import pattern
from mailfleet_router.decisions.shaping.values import RATE_PATTERN

RATE_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}


class LeftOut(NamedTuple):
    """A line that our policy has no equivalent for, or only one that differs."""

    origin: str
    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}: {self.text}: {self.why}"


class Imported(NamedTuple):
    """A policy as data (`policy_file.dump` writes it), and what is not in it."""

    policy: dict[str, Any]
    left_out: tuple[LeftOut, ...]


_RATE = re.compile(r"([0-9][0-9,_.]*)\s*/\s*([0-9]*)\s*([a-z]+)\Z", re.IGNORECASE)
_PART = re.compile(r"([0-9]+)\s*([a-z]+)", re.IGNORECASE)


def rate(text: str) -> str | None:
    """`5/hr`, `1/2 min`, `100/second` → `5/h`, `1/2m`, `100/s`; None: it is no rate."""
    found = _RATE.match(text.strip())
    unit = RATE_UNITS.get(found[3].lower()) if found else None
    if not found or not unit or (found[2] and not int(found[2])):
        return None
    ours = f"{found[1].replace(',', '').replace('_', '')}/{found[2]}{unit}"
    return ours if re.search(RATE_PATTERN, ours) else None


def duration(text: str) -> str | None:
    """`2 hours`, `4d12h`, `90` (seconds) → `2h`, `4d12h`, `90s`; None: it is no duration."""
    text = text.strip()
    if text.isdigit():
        return f"{text}s"
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip() or any(unit.lower() not in RATE_UNITS for _, unit in parts):
        return None
    return "".join(f"{number}{RATE_UNITS[unit.lower()]}" for number, unit in parts)


_CODE = re.compile(r"\^?([245][0-9]{2})(?:[ -]([245])\\?\.([0-9]{1,3})\\?\.([0-9]{1,3}))?(?: (.*))?\Z", re.DOTALL)


def reply_match(expression: str) -> dict[str, Any]:
    """`421 4\\.7\\.0 \\[TS` → code, enhanced and text: their expressions look at the whole line of a reply, ours at its parts.

    Raises PolicyError where our expressions cannot say it.
    """
    found = _CODE.match(expression)
    text = expression if not found else found[5] or ""
    pattern(text)
    match: dict[str, Any] = {"code": found[1]} if found else {}
    if found and found[2]:
        match["enhanced"] = f"{found[2]}.{found[3]}.{found[4]}"
    return match | ({"text": text} if text else {})


def unique(name: str, taken: Iterable[str]) -> str:
    """`name`, or with a number that makes it the only one."""
    there = set(taken)
    return next(
        candidate
        for candidate in (name, *(f"{name}-{number}" for number in range(2, len(there) + 3)))
        if candidate not in there
    )
