"""Words that all of shaping shares: what a unit is to the policy, patterns over it, rates and where a value comes from."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec

FIELDS = ("tenant", "stream", "pool", "source", "site", "provider", "domain", "campaign")
"""What a limit, a response rule or a control may name."""


class PolicyError(Exception):
    """The traffic policy cannot be used; the text says where (file, line, key) and what to write instead."""


class Refusal(NamedTuple):
    """Why a part of the policy cannot be used, and the path to the wrong key in it."""

    path: tuple[str | int, ...]
    text: str


class Facts(NamedTuple):
    """One attempt as the policy sees it. Empty: not known, or there is none."""

    tenant: str = ""
    stream: str = ""
    pool: str = ""
    source: str = ""
    site: str = ""
    """The set of MX hosts; that of a shipped provider bears the provider's name."""
    provider: str = ""
    domain: str = ""
    campaign: str = ""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A part of the policy file: frozen, typed, closed."""


RATE_PATTERN = r"^[0-9][0-9,_]*(\.[0-9]+)?/([1-9][0-9]*)?[smhd]$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?[smhd])+$"

Rate = Annotated[str, msgspec.Meta(pattern=RATE_PATTERN)]
Duration = Annotated[str, msgspec.Meta(pattern=DURATION_PATTERN)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


def doc(text: str, *examples: object) -> msgspec.Meta:
    """What a key of the policy file means, and examples of it; `docs/policy.md` is written from them."""
    return msgspec.Meta(description=text, examples=list(examples))


class Citation(Spec, frozen=True):
    """Where a shipped value comes from: a public page, and the day it was read."""

    url: Annotated[str, doc("The public page.", "https://senders.yahooinc.com/best-practices/")]
    date: Annotated[str, doc("The day it was read (ISO 8601).", "2026-11-22")]


class Match(Spec, frozen=True):
    """Patterns over facts. Every field that is given must match one of its patterns; none given matches everything.

    A pattern is a whole word, `*.x` (everything below x), `x*` or `*`; letters' case does not matter.
    """

    tenant: Annotated[tuple[str, ...], doc("On whose behalf.", ["shop"])] = ()
    stream: Annotated[tuple[str, ...], doc("Class of mail.", ["bulk"])] = ()
    pool: Annotated[tuple[str, ...], doc("Egress pool.", ["default"])] = ()
    source: Annotated[tuple[str, ...], doc("Egress source.", ["ip-1"])] = ()
    site: Annotated[
        tuple[str, ...], doc("Site: a shipped provider's name, or that of its MX hosts.", ["mx.example.org"])
    ] = ()
    provider: Annotated[tuple[str, ...], doc("A provider of this policy.", ["yahoo"])] = ()
    domain: Annotated[tuple[str, ...], doc("Recipient domain.", ["*.example.org"])] = ()
    campaign: Annotated[tuple[str, ...], doc("The client's own label.", ["spring"])] = ()

    def matches(self, facts: Facts) -> bool:
        """Is `facts` meant?"""
        return all(
            not patterns or any(fits(pattern, value) for pattern in patterns)
            for patterns, value in zip(self._patterns(), facts, strict=True)
        )

    def _patterns(self) -> tuple[tuple[str, ...], ...]:
        return (
            self.tenant, self.stream, self.pool, self.source, self.site, self.provider, self.domain, self.campaign,
        )  # fmt: skip


def fits(pattern: str, value: str) -> bool:
    """Does one pattern of `Match` fit?"""
    pattern, value = pattern.lower(), value.lower()
    if pattern.startswith("*."):
        return value.endswith(pattern[1:]) and len(value) > len(pattern) - 1
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(\d*)(s|m|h|d)\Z")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:s|m|h|d))+\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")


def rate_per_second(text: str) -> float:
    """`100/m`, `5/10s`, `20000/d` → per second. Raises PolicyError."""
    found = _RATE.match(text.strip().replace(",", "").replace("_", ""))
    if not found:
        raise PolicyError(f"{text!r} is no rate: write messages and time, such as 100/m, 20/s, 5/10s or 20000/d")
    return float(found[1]) / ((float(found[2]) if found[2] else 1.0) * _UNITS[found[3]] or 1.0)


def seconds(text: str) -> float:
    """`90s`, `10m`, `1h30m`, `2d` → seconds. Raises PolicyError."""
    if not _DURATION.match(text.strip()):
        raise PolicyError(f"{text!r} is no duration: write 90s, 10m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
