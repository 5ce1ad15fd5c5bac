"""The traffic policy as typed values: what a policy file and a Kubernetes resource may say, in the same shape.

Everything that has a name is an item of a list, so that a path such as `limits[2].cases[0].burst` names one place, and
rates and durations are text, checked by a pattern. `docs/policy.md` is written from the descriptions and examples here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from mailfleet_router.decisions.shaping.values import Citation, Match, Spec

Field = Literal["tenant", "stream", "pool", "source", "site", "provider", "domain", "campaign"]
"""One of `values.FIELDS`."""

RATE_PATTERN = r"^[0-9][0-9,_]*(\.[0-9]+)?/([1-9][0-9]*)?[smhd]$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?[smhd])+$"

Rate = Annotated[str, msgspec.Meta(pattern=RATE_PATTERN)]
Duration = Annotated[str, msgspec.Meta(pattern=DURATION_PATTERN)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


def _doc(text: str, *examples: object) -> msgspec.Meta:
    return msgspec.Meta(description=text, examples=list(examples))


class Provider(Spec, frozen=True, kw_only=True):
    """A mailbox provider: the MX hosts, or domains, that are one receiver to us."""

    name: Annotated[Name, _doc("Its name in `if` and of its site.", "yahoo")]
    mx: Annotated[
        tuple[str, ...],
        _doc(
            "Patterns of MX hosts; every MX host of a domain must match. The longest pattern wins.", ["*.yahoodns.net"]
        ),
    ] = ()
    domains: Annotated[
        tuple[str, ...], _doc("Recipient domains that are of it, whatever their MX says.", ["yahoo.com"])
    ] = ()
    citation: Annotated[
        Citation | None,
        _doc(
            "Where the provider says how mail is to be sent to it.",
            {"url": "https://senders.yahooinc.com/best-practices/", "date": "2026-11-22"},
        ),
    ] = None


class Case(Spec, frozen=True, kw_only=True):
    """One case of a limit: the values for what `if` matches. A value that is not given is no limit."""

    when: Annotated[Match, _doc("What the case is for; without it, everything.", {"provider": ["yahoo"]})] = (
        msgspec.field(name="if", default=Match())
    )
    message_rate: Annotated[Rate | None, _doc("Messages per time.", "100/m")] = None
    burst: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        _doc(
            "Messages that may go at once; without it a tenth of a second's worth of `message_rate`, at least one.", 10
        ),
    ] = None
    connection_rate: Annotated[Rate | None, _doc("New connections per time.", "20/m")] = None
    concurrency: Annotated[Annotated[int, msgspec.Meta(ge=0)] | None, _doc("Connections at once.", 10)] = None
    messages_per_connection: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, _doc("Then the connection is closed.", 20)
    ] = None
    window: Annotated[Annotated[int, msgspec.Meta(ge=0)] | None, _doc("Units in senders' hands at once.", 100)] = None
    suspend: Annotated[bool, _doc("Nothing is sent while the case matches; mail waits.", False)] = False
    citation: Annotated[
        Citation | None,
        _doc("Where the values come from.", {"url": "https://help.yahoo.com/kb/SLN3433.html", "date": "2026-11-22"}),
    ] = None


class Limit(Spec, frozen=True, kw_only=True):
    """A limit: one counter for each combination of the fields in `per`. Its first case that matches counts; all limits
    hold together, and the least value of each quantity decides."""

    name: Annotated[Name, _doc("Its name where it is shown why mail waits.", "receivers")]
    per: Annotated[
        tuple[Field, ...],
        _doc(
            "One counter is kept for each combination of these fields; without any, one for everything.",
            ["source", "site"],
        ),
    ] = ()
    cases: Annotated[
        tuple[Case, ...], _doc("In order: the first that matches.", [{"if": {"provider": ["yahoo"]}, "concurrency": 5}])
    ]


class Ladder(Spec, frozen=True, kw_only=True):
    """When the mail of a stream is tried again, and when no more."""

    stream: Annotated[Name, _doc("Whose mail.", "bulk")]
    retry: Annotated[
        tuple[Duration, ...], _doc("Waits between attempts; the last one repeats.", ["5m", "10m", "20m", "1h"])
    ]
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1), _doc("Each wait is lengthened by up to this share.", 0.2)] = 0.2
    expire: Annotated[Duration, _doc("Life in the queue; RFC 5321 4.5.4.1 says at least 4 to 5 days.", "5d")] = "5d"
    delay_dsn: Annotated[Duration, _doc("When the sender is told of a delay; `0s`: never.", "4h")] = "4h"
    greylist: Annotated[
        bool, _doc("Try again soon after a reply that looks like greylisting, and from the same source.", True)
    ] = True


class Member(Spec, frozen=True, kw_only=True):
    """A source in a pool."""

    source: Annotated[Name, _doc("An egress source of the settings.", "ip-1")]
    weight: Annotated[int, msgspec.Meta(ge=0), _doc("Its share, next to the others'.", 1)] = 1


class Pool(Spec, frozen=True, kw_only=True):
    """Weighted egress sources that a tenant may use."""

    name: Annotated[Name, _doc("Its name in credentials.", "default")]
    sources: Annotated[tuple[Member, ...], _doc("Its sources.", [{"source": "ip-1", "weight": 1}])] = ()
    overflow: Annotated[
        str, _doc("The pool that takes what the sources' warm-up plans do not allow; empty: such mail waits.", "warm")
    ] = ""


class Stream(Spec, frozen=True, kw_only=True):
    """How a stream stands beside the others at a site."""

    name: Annotated[Name, _doc("The stream.", "transactional")]
    priority: Annotated[int, msgspec.Meta(ge=0), _doc("A lower number goes first.", 0)] = 1
    floor: Annotated[
        float, msgspec.Meta(ge=0, le=1), _doc("The share of a site's rate that it has in any case.", 0.1)
    ] = 0.0


class Tenant(Spec, frozen=True, kw_only=True):
    """How a tenant stands beside the others at a site."""

    name: Annotated[Name, _doc("The tenant.", "shop")]
    weight: Annotated[int, msgspec.Meta(ge=1), _doc("Its share of a busy site, next to the others'.", 1)] = 1


class Traffic(Spec, frozen=True, kw_only=True):
    """The whole policy."""

    version: Annotated[Literal[1], _doc("Of this format.", 1)]
    base: Annotated[
        Literal["shipped", "none"],
        _doc(
            "What this file is put over. An item that has a name replaces the item of that name below it; new limits, "
            "rules and providers come before those below.",
            "shipped",
        ),
    ] = "shipped"
    providers: Annotated[
        tuple[Provider, ...], _doc("Who receives.", [{"name": "yahoo", "mx": ["*.yahoodns.net"]}])
    ] = ()
    limits: Annotated[
        tuple[Limit, ...],
        _doc("How much at a time.", [{"name": "bulk", "per": ["site"], "cases": [{"message_rate": "100/m"}]}]),
    ] = ()
    rules: Annotated[
        tuple[dict[str, Any], ...],
        _doc(
            "What a reply of a receiver does; the first rule that matches.",
            [{"name": "busy", "text": "try again later"}],
        ),
    ] = ()
    ladders: Annotated[tuple[Ladder, ...], _doc("Retry times of streams.", [{"stream": "bulk", "retry": ["10m"]}])] = ()
    warmup: Annotated[tuple[dict[str, Any], ...], _doc("Plans for new sources.", [{"name": "new"}])] = ()
    reputation: Annotated[dict[str, Any], _doc("From outcomes to a source's score.", {})] = msgspec.field(
        default_factory=dict
    )
    pools: Annotated[
        tuple[Pool, ...], _doc("Which sources.", [{"name": "default", "sources": [{"source": "ip-1"}]}])
    ] = ()
    streams: Annotated[
        tuple[Stream, ...], _doc("Streams beside each other.", [{"name": "transactional", "priority": 0}])
    ] = ()
    tenants: Annotated[tuple[Tenant, ...], _doc("Tenants beside each other.", [{"name": "shop", "weight": 2}])] = ()


NAMED = {
    "providers": "name", "limits": "name", "rules": "name", "ladders": "stream", "warmup": "name",
    "pools": "name", "streams": "name", "tenants": "name",
}  # fmt: skip
"""Sections that are lists, and the key that tells their items apart."""

QUANTITIES = ("message_rate", "connection_rate", "concurrency", "messages_per_connection", "window")
"""What a case may limit."""
