"""The traffic policy as typed values: what a policy file and a Kubernetes resource may say, in the same shape.

Everything that has a name is an item of a list, so that a path such as `limits[2].cases[0].burst` names one place, and
rates and durations are text, checked by a pattern. `docs/policy.md` is written from the descriptions and examples here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mailfleet_router.decisions.shaping.responses import ResponseRule
from mailfleet_router.decisions.shaping.values import Citation, Duration, Match, Name, Rate, Spec, doc

Field = Literal["tenant", "stream", "pool", "source", "site", "provider", "domain", "campaign"]
"""One of `values.FIELDS`."""


class Provider(Spec, frozen=True, kw_only=True):
    """A mailbox provider: the MX hosts, or domains, that are one receiver to us."""

    name: Annotated[Name, doc("Its name in `if`; that of a shipped one is also the name of its site.", "yahoo")]
    mx: Annotated[
        tuple[str, ...],
        doc(
            "Patterns of MX hosts; every MX host of a domain must match. The longest pattern wins.", ["*.yahoodns.net"]
        ),
    ] = ()
    domains: Annotated[
        tuple[str, ...], doc("Recipient domains that are of it, whatever their MX says.", ["yahoo.com"])
    ] = ()
    feedback: Annotated[
        bool,
        doc(
            "It reports complaints to us (a feedback loop), so they are a share of what is delivered to it. Without it, that "
            "is known from its first complaint on.",
            True,
        ),
    ] = False
    citation: Annotated[
        Citation | None,
        doc(
            "Where the provider says how mail is to be sent to it.",
            {"url": "https://senders.yahooinc.com/best-practices/", "date": "2026-11-22"},
        ),
    ] = None


class HotSite(Spec, frozen=True, kw_only=True):
    """A site for which one router is not enough: it is divided into shards by sources, each with an owner of its own."""

    site: Annotated[
        Name, doc("The site: a provider's name, or its MX hosts as `mailfleet queues` shows them.", "google")
    ]
    shards: Annotated[
        int,
        msgspec.Meta(ge=1, le=64),
        doc(
            "Into how many shards it is divided; no more than there are sources. What holds for a source at the site stays "
            "exact; other limits of the site are shared out. May be changed at any time.",
            4,
        ),
    ]


class Case(Spec, frozen=True, kw_only=True):
    """One case of a limit: the values for what `if` matches. A value that is not given is no limit."""

    when: Annotated[Match, doc("What the case is for; without it, everything.", {"provider": ["yahoo"]})] = (
        msgspec.field(name="if", default=Match())
    )
    message_rate: Annotated[Rate | None, doc("Messages per time.", "100/m")] = None
    burst: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        doc(
            "Messages that may go at once; without it a tenth of a second's worth of `message_rate`, at least one.", 10
        ),
    ] = None
    connection_rate: Annotated[Rate | None, doc("New connections per time.", "20/m")] = None
    concurrency: Annotated[Annotated[int, msgspec.Meta(ge=0)] | None, doc("Connections at once.", 10)] = None
    messages_per_connection: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, doc("Then the connection is closed.", 20)
    ] = None
    window: Annotated[Annotated[int, msgspec.Meta(ge=0)] | None, doc("Units in senders' hands at once.", 100)] = None
    ramp: Annotated[
        Rate | None,
        doc(
            "For receivers that publish no rate: the pace begins here, and is never more than twice what it was in the last "
            "minute.",
            "2/s",
        ),
    ] = None
    suspend: Annotated[bool, doc("Nothing is sent while the case matches; mail waits.", False)] = False
    citation: Annotated[
        Citation | None,
        doc("Where the values come from.", {"url": "https://help.yahoo.com/kb/SLN3433.html", "date": "2026-11-22"}),
    ] = None


class Limit(Spec, frozen=True, kw_only=True):
    """A limit: one counter for each combination of the fields in `per`. Its first case that matches counts; all limits
    hold together, and the least value of each quantity decides."""

    name: Annotated[Name, doc("Its name where it is shown why mail waits.", "receivers")]
    per: Annotated[
        tuple[Field, ...],
        doc(
            "One counter is kept for each combination of these fields; without any, one for everything.",
            ["source", "site"],
        ),
    ] = ()
    cases: Annotated[
        tuple[Case, ...], doc("In order: the first that matches.", [{"if": {"provider": ["yahoo"]}, "concurrency": 5}])
    ]


class Ladder(Spec, frozen=True, kw_only=True):
    """When the mail of a stream is tried again, and when no more."""

    stream: Annotated[Name, doc("Whose mail.", "bulk")]
    retry: Annotated[
        tuple[Duration, ...], doc("Waits between attempts; the last one repeats.", ["5m", "10m", "20m", "1h"])
    ]
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1), doc("Each wait is lengthened by up to this share.", 0.2)] = 0.2
    expire: Annotated[Duration, doc("Life in the queue; RFC 5321 4.5.4.1 says at least 4 to 5 days.", "5d")] = "5d"
    delay_dsn: Annotated[Duration, doc("When the sender is told of a delay; `0s`: never.", "4h")] = "4h"
    greylist: Annotated[
        bool, doc("Try again soon after a reply that looks like greylisting, and from the same source.", True)
    ] = True


class Member(Spec, frozen=True, kw_only=True):
    """A source in a pool."""

    source: Annotated[Name, doc("An egress source of the settings.", "ip-1")]
    weight: Annotated[int, msgspec.Meta(ge=0), doc("Its share, next to the others'.", 1)] = 1


class Pool(Spec, frozen=True, kw_only=True):
    """Weighted egress sources that a tenant may use."""

    name: Annotated[Name, doc("Its name in credentials.", "default")]
    sources: Annotated[tuple[Member, ...], doc("Its sources.", [{"source": "ip-1", "weight": 1}])] = ()
    overflow: Annotated[
        str, doc("The pool that takes what the sources' warm-up plans do not allow; empty: such mail waits.", "warm")
    ] = ""


class Stream(Spec, frozen=True, kw_only=True):
    """How a stream stands beside the others at a site."""

    name: Annotated[Name, doc("The stream.", "transactional")]
    priority: Annotated[int, msgspec.Meta(ge=0), doc("A lower number goes first.", 0)] = 1
    floor: Annotated[
        float, msgspec.Meta(ge=0, le=1), doc("The share of a site's rate that it has in any case.", 0.1)
    ] = 0.0


class Tenant(Spec, frozen=True, kw_only=True):
    """How a tenant stands beside the others at a site."""

    name: Annotated[Name, doc("The tenant.", "shop")]
    weight: Annotated[int, msgspec.Meta(ge=1), doc("Its share of a busy site, next to the others'.", 1)] = 1


class Warmup(Spec, frozen=True, kw_only=True):
    """A plan that new sources go through, at each provider for itself."""

    name: Annotated[
        Name, doc("Its name; `conservative`, `geometric-1.4` and `linear-45` are shipped plans.", "conservative")
    ]
    sources: Annotated[tuple[str, ...], doc("The sources that go through it; patterns as in `if`.", ["ip-3"])] = ()
    day_caps: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...],
        doc(
            "Messages a day, stage after stage; after the last there is no limit. Without it, those of the shipped plan of "
            "this name.",
            [200, 500, 1000],
        ),
    ] = ()
    hour_share: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        doc("The part of a day's cap that one hour may use; without it, that of the shipped plan, else 0.2.", 0.2),
    ] = None
    citation: Annotated[
        Citation | None,
        doc(
            "Where the caps come from.", {"url": "https://help.mailtrap.io/article/98-ip-warmup", "date": "2026-11-22"}
        ),
    ] = None


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Score = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Term(Spec, frozen=True, kw_only=True):
    """How one kind of bad answer counts. What is not given is as shipped."""

    prior: Annotated[Share | None, doc("The share that is expected of anybody.", 0.0002)] = None
    weight: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None, doc("How many answers the prior counts as.", 2000)
    ] = None
    limit: Annotated[Share | None, doc("The share at which this kind alone makes the score 29 of 100.", 0.003)] = None
    least: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, doc("Fewer than so many in a week never change a state.", 3)
    ] = None


class Reputation(Spec, frozen=True, kw_only=True):
    """From answers to a source's score (0 to 100) and its state: good, watch, slow or quarantine."""

    deferrals: Annotated[Term, doc("Temporary refusals.", {"limit": 0.3})] = Term()
    hard_bounces: Annotated[Term, doc("Recipients that do not exist.", {"limit": 0.1})] = Term()
    block_replies: Annotated[Term, doc("Replies of a block class.", {"limit": 0.05})] = Term()
    complaints: Annotated[Term, doc("Complaints, of what was delivered where they are reported.", {"limit": 0.002})] = (
        Term()
    )
    watch_below: Annotated[Score | None, doc("The score under which a source is watched.", 80)] = None
    slow_below: Annotated[Score | None, doc("The score under which its rate is halved.", 60)] = None
    quarantine_below: Annotated[Score | None, doc("The score under which it is in quarantine.", 40)] = None
    margin: Annotated[Score | None, doc("So far above its border must the score be for a state to be left.", 10)] = None
    clean: Annotated[
        Duration | None, doc("So long without a complaint or a block reply before a state is left.", "6h")
    ] = None


class Traffic(Spec, frozen=True, kw_only=True):
    """The whole policy."""

    version: Annotated[Literal[1], doc("Of this format.", 1)]
    base: Annotated[
        Literal["shipped", "none"],
        doc(
            "What this file is put over. An item that has a name replaces the item of that name below it; new limits, "
            "rules and providers come before those below.",
            "shipped",
        ),
    ] = "shipped"
    providers: Annotated[tuple[Provider, ...], doc("Who receives.", [{"name": "yahoo", "mx": ["*.yahoodns.net"]}])] = ()
    sites: Annotated[
        tuple[HotSite, ...], doc("Sites that several routers work for at once.", [{"site": "google", "shards": 4}])
    ] = ()
    limits: Annotated[
        tuple[Limit, ...],
        doc("How much at a time.", [{"name": "bulk", "per": ["site"], "cases": [{"message_rate": "100/m"}]}]),
    ] = ()
    rules: Annotated[
        tuple[ResponseRule, ...],
        doc(
            "What a reply of a receiver means and does: the first rule that matches, those that name a provider first.",
            [{"name": "busy", "text": "try again later"}],
        ),
    ] = ()
    ladders: Annotated[tuple[Ladder, ...], doc("Retry times of streams.", [{"stream": "bulk", "retry": ["10m"]}])] = ()
    warmup: Annotated[
        tuple[Warmup, ...], doc("Plans for new sources.", [{"name": "conservative", "sources": ["ip-3"]}])
    ] = ()
    reputation: Annotated[
        Reputation, doc("From answers to a source's score and state.", {"complaints": {"limit": 0.002}})
    ] = Reputation()
    pools: Annotated[
        tuple[Pool, ...], doc("Which sources.", [{"name": "default", "sources": [{"source": "ip-1"}]}])
    ] = ()
    streams: Annotated[
        tuple[Stream, ...], doc("Streams beside each other.", [{"name": "transactional", "priority": 0}])
    ] = ()
    tenants: Annotated[tuple[Tenant, ...], doc("Tenants beside each other.", [{"name": "shop", "weight": 2}])] = ()


NAMED = {
    "providers": "name", "sites": "site", "limits": "name", "rules": "name", "ladders": "stream", "warmup": "name",
    "pools": "name", "streams": "name", "tenants": "name",
}  # fmt: skip
"""Sections that are lists, and the key that tells their items apart."""

QUANTITIES = ("message_rate", "ramp", "connection_rate", "concurrency", "messages_per_connection", "window")
"""What a case may limit."""
