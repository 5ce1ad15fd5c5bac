"""What is wrong with a policy although it can be read: contradictions, cases that never match, words that nobody knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate, combinations, pairwise
from typing import NamedTuple

from mailfleet_router.decisions.shaping.limits import SENDERS, weight
from mailfleet_router.decisions.shaping.policy_file import Place, Policy, dotted, nearest
from mailfleet_router.decisions.shaping.responses import (
    Blame,
    Effect,
    ReplyClass,
    ResponseRule,
    Responses,
    Slowed,
    codes,
    in_order,
    several,
)
from mailfleet_router.decisions.shaping.sample import sample
from mailfleet_router.decisions.shaping.schema import QUANTITIES, Case, Limit, Traffic
from mailfleet_router.decisions.shaping.values import FIELDS, Facts, Match, fits, rate_per_second, seconds

ERROR, WARNING = "error", "warning"


class Known(NamedTuple):
    """The names that the settings know; None: not known here, and so not looked at."""

    streams: frozenset[str] | None = None
    pools: frozenset[str] | None = None
    sources: frozenset[str] | None = None
    tenants: frozenset[str] | None = None


class Finding(NamedTuple):
    """Something that is wrong. An `error` never does what its author meant, a `warning` may not."""

    severity: str
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.text}"


NOTHING_KNOWN = Known()


def check(policy: Policy, known: Known = NOTHING_KNOWN) -> tuple[Finding, ...]:
    """All findings, in the order of the sections."""
    return (
        *_providers(policy),
        *_sites(policy, known),
        *_limits(policy, known),
        *_rules(policy, known),
        *_ladders(policy, known),
        *_pools(policy, known),
        *_streams(policy, known),
        *_warmup(policy, known),
    )


def covers(wide: str, narrow: str) -> bool:
    """Does the pattern `wide` fit everything that `narrow` fits?"""
    wide, narrow = wide.lower(), narrow.lower()
    if wide in ("*", narrow):
        return True
    if narrow.startswith("*."):
        return wide.startswith("*.") and narrow.endswith(wide[1:])
    if narrow.endswith("*"):
        return not wide.startswith("*.") and wide.endswith("*") and narrow[:-1].startswith(wide[:-1])
    return fits(wide, narrow)


def shadows(earlier: Match, later: Match) -> bool:
    """Does `earlier` match everything that `later` matches, so that a case after it is never reached?"""
    return all(_covered(getattr(later, field), getattr(earlier, field)) for field in FIELDS)


def _covered(narrow: tuple[str, ...], wide: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and all(any(covers(one, each) for one in wide) for each in narrow))


# --- providers ------------------------------------------------------------------------------------------------------------


def _providers(policy: Policy) -> Iterator[Finding]:
    providers = policy.traffic.providers
    for index, provider in enumerate(providers):
        for key in ("mx", "domains"):
            yield from _patterns(policy, ("providers", index, key), getattr(provider, key))
        if not provider.mx and not provider.domains:
            place = policy.place("providers", index)
            yield Finding(WARNING, place, f"provider {provider.name!r} has neither mx nor domains: nobody is it")
    for (_, first), (index, second) in combinations(enumerate(providers), 2):
        for key in ("mx", "domains"):
            for one, other in _pairs(getattr(first, key), getattr(second, key)):
                place = policy.place("providers", index, key)
                yield from _overlap(place, (first.name, one), (second.name, other))


def _sites(policy: Policy, known: Known) -> Iterator[Finding]:
    for index, site in enumerate(policy.traffic.sites):
        place = policy.place("sites", index, "shards")
        if known.sources is not None and site.shards > len(known.sources):
            text = f"{site.site!r} has {site.shards} shards, but there are {len(known.sources)} sources; each shard needs one"
            yield Finding(ERROR, place, text)


def _pairs(first: tuple[str, ...], second: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield from ((one, other) for one in first for other in second if covers(one, other) or covers(other, one))


def _overlap(place: Place, first: tuple[str, str], second: tuple[str, str]) -> Iterator[Finding]:
    if first[1].lower() == second[1].lower():
        text = f"{first[1]!r} is a pattern of both {first[0]!r} and {second[0]!r}; only one of them can be meant"
        yield Finding(ERROR, place, text)
    else:
        longer = max(first, second, key=lambda provider: weight(provider[1]))
        text = (
            f"{first[1]!r} of {first[0]!r} and {second[1]!r} of {second[0]!r} overlap; the longer counts: {longer[0]!r}"
        )
        yield Finding(WARNING, place, text)


def _patterns(policy: Policy, path: tuple[str | int, ...], patterns: Iterable[str]) -> Iterator[Finding]:
    for index, pattern in enumerate(patterns):
        inner = pattern.removeprefix("*.") if pattern.startswith("*.") else pattern.removesuffix("*")
        why = (
            "it is empty" if not pattern
            else "`*` stands for the beginning (`*.x`) or the end (`x*`) only" if "*" in inner
            else "it has a dot or a space at its end" if pattern != pattern.strip() or pattern.endswith(".")
            else ""
        )  # fmt: skip
        if why:
            yield Finding(ERROR, policy.place(*path, index), f"{pattern!r} can never match: {why}")


# --- limits ---------------------------------------------------------------------------------------------------------------


def _limits(policy: Policy, known: Known) -> Iterator[Finding]:
    for index, limit in enumerate(policy.traffic.limits):
        path = ("limits", index)
        if len(set(limit.per)) != len(limit.per):
            yield Finding(WARNING, policy.place(*path, "per"), f"limit {limit.name!r} names a field of `per` twice")
        for number, case in enumerate(limit.cases):
            where = (*path, "cases", number)
            yield from _unreachable(policy, where, limit, number)
            yield from _contradictions(policy, where, case)
            yield from _not_counted(policy, where, limit, case)
            yield from _words(policy, (*where, "if"), case.when, known)


def _unreachable(policy: Policy, path: tuple[str | int, ...], limit: Limit, number: int) -> Iterator[Finding]:
    for earlier in range(number):
        if shadows(limit.cases[earlier].when, limit.cases[number].when):
            line = policy.place(*path[:-1], earlier)
            text = f"{dotted(path)} can never match: case {earlier} ({line}) matches all that it does"
            yield Finding(ERROR, policy.place(*path), text)
            return


def _contradictions(policy: Policy, path: tuple[str | int, ...], case: Case) -> Iterator[Finding]:
    for name in QUANTITIES:
        value = getattr(case, name)
        if not case.suspend and (value == 0 or (isinstance(value, str) and not rate_per_second(value))):
            text = f"{name} 0 lets nothing through, for ever; say `suspend: true` if that is meant"
            yield Finding(ERROR, policy.place(*path, name), text)
    if case.window is not None and case.concurrency is not None and case.concurrency > case.window:
        text = f"{case.concurrency} connections are more than the window of {case.window} units can use"
        yield Finding(WARNING, policy.place(*path, "concurrency"), text)
    if case.burst is not None and case.message_rate is None:
        yield Finding(WARNING, policy.place(*path, "burst"), "a burst without a message_rate does nothing")
    if not case.suspend and all(getattr(case, name) is None for name in QUANTITIES):
        text = f"{dotted(path)} sets nothing: what it matches is not limited here"
        yield Finding(WARNING, policy.place(*path), text)


def _not_counted(policy: Policy, path: tuple[str | int, ...], limit: Limit, case: Case) -> Iterator[Finding]:
    given = [name for name in SENDERS if getattr(case, name) is not None]
    if given and set(limit.per) != {"source", "site"}:
        text = f"{given[0]} is kept for each source and site, whatever `per` says; write `per: [source, site]`"
        yield Finding(WARNING, policy.place(*path, given[0]), text)


def _words(policy: Policy, path: tuple[str | int, ...], match: Match, known: Known) -> Iterator[Finding]:
    traffic = policy.traffic
    words = {
        "provider": frozenset(provider.name for provider in traffic.providers),
        "stream": known.streams,
        "pool": _pool_names(traffic, known),
        "source": known.sources,
        "tenant": known.tenants,
    }
    for field in FIELDS:
        yield from _patterns(policy, (*path, field), getattr(match, field))
        for index, pattern in enumerate(getattr(match, field)):
            there = words.get(field)
            if there is not None and not any(fits(pattern, word) for word in there):
                text = f"there is no {field} {pattern!r}{nearest(pattern, tuple(there))}"
                yield Finding(ERROR, policy.place(*path, field, index), text)


# --- rules ----------------------------------------------------------------------------------------------------------------


def _rules(policy: Policy, known: Known) -> Iterator[Finding]:
    numbers = {rule.name: number for number, rule in enumerate(policy.traffic.rules)}
    for number, rule in enumerate(policy.traffic.rules):
        yield from _words(policy, ("rules", number, "if"), rule.applies, known)
        for key, text in _pointless(rule):
            yield Finding(WARNING, policy.place("rules", number, key), f"rule {rule.name!r}: {text}")
    # A rule that takes what belongs to one of the file below is put there for that; within a file it is a mistake.
    for pack in policy.packs():
        yield from _taken(policy, in_order(pack), numbers)


def _pointless(rule: ResponseRule) -> Iterator[tuple[str, str]]:
    """Keys that do nothing as they are, and why."""
    says = rule.reply_class is not ReplyClass.UNKNOWN or rule.blame is not Blame.RECEIVER
    if rule.effect is Effect.NONE and not says:
        yield "name", "it has neither a class nor an effect; it only keeps later rules from being asked"
    if rule.effect is Effect.NONE and rule.threshold:
        yield "threshold", "a threshold without an effect does nothing"
    if rule.share and not rule.threshold:
        yield "share", "of one reply a share says nothing; write a threshold beside it"
    if rule.ttl and rule.effect not in (Effect.SLOW, Effect.PAUSE, Effect.DISABLE_SOURCE):
        yield "ttl", f"a ttl with the effect {rule.effect} does nothing"
    if rule.to != Slowed() and rule.effect is not Effect.SLOW:
        yield "to", f"`to` with the effect {rule.effect} does nothing; it belongs to slow"
    if rule.to.rate and not rate_per_second(rule.to.rate):
        yield "to", f"a rate of {rule.to.rate} lets nothing through; write `effect: pause`"
    if rule.blame is Blame.RECIPIENT and rule.effect not in (Effect.NONE, Effect.BOUNCE):
        yield "effect", f"it blames one recipient, but {rule.effect} holds up mail for others"


def _taken(policy: Policy, rules: list[ResponseRule], numbers: Mapping[str, int]) -> Iterator[Finding]:
    """Rules and samples that earlier rules of the same pack take."""
    together = Responses(rules)
    for position, rule in enumerate(rules):
        path = ("rules", numbers[rule.name])
        wider = next((earlier for earlier in rules[:position] if takes_all(earlier, rule)), None)
        if wider is not None:
            where = policy.place("rules", numbers[wider.name])
            text = f"rule {rule.name!r} can never match: rule {wider.name!r} ({where}) comes first and matches all that it does"
            yield Finding(ERROR, policy.place(*path), text)
            continue
        alone = Responses([rule])
        for kind, lines in (("match", rule.samples.match), ("not", rule.samples.never)):
            for index, line in enumerate(lines):
                text = _sample(rule, line, kind, alone, together)
                if text:
                    yield Finding(ERROR, policy.place(*path, "samples", kind, index), f"rule {rule.name!r}: {text}")


def _sample(rule: ResponseRule, line: str, kind: str, alone: Responses, together: Responses) -> str:
    """What is wrong with a sample; empty: nothing."""
    reply = sample(line)
    if reply is None:
        return f"{line[:60]!r} is no sample: write [phase] code [enhanced code] text"
    if rule.enhanced and not reply.enhanced:
        return ""
    facts = Facts(**{field: patterns[0].replace("*", "x") for field, patterns in _given(rule.applies)})
    matches = bool(alone.classify(facts, reply).rule)
    if matches != (kind == "match"):
        return f"it {'matches' if matches else 'does not match'} its sample {line[:60]!r}"
    taker = together.classify(facts, reply).rule
    return f"its sample {line[:60]!r} is taken by rule {taker!r}" if matches and taker != rule.name else ""


def takes_all(earlier: ResponseRule, later: ResponseRule) -> bool:
    """Does `earlier` match all that `later` matches? False also where only the expressions could tell."""
    return (
        _within(several(later.text), several(earlier.text))
        and _within(later.phase, earlier.phase)
        and _within(codes(later.code), codes(earlier.code))
        and _covered(several(later.enhanced), several(earlier.enhanced))
        and shadows(earlier.applies, later.applies)
    )


def _within(narrow: Collection[object], wide: Collection[object]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _given(match: Match) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((field, getattr(match, field)) for field in FIELDS if getattr(match, field))


# --- the other sections ------------------------------------------------------------------------------------------------


def _ladders(policy: Policy, known: Known) -> Iterator[Finding]:
    for index, ladder in enumerate(policy.traffic.ladders):
        path = ("ladders", index)
        yield from _unknown(policy, (*path, "stream"), "stream", ladder.stream, known.streams)
        life, waits = seconds(ladder.expire), [seconds(wait) for wait in ladder.retry]
        if not waits:
            yield Finding(ERROR, policy.place(*path, "retry"), f"the ladder of {ladder.stream!r} has no waits")
        late = next((number for number, due in enumerate(accumulate(waits)) if due >= life), None)
        if late is not None:
            text = f"wait {late + 1} ({ladder.retry[late]}) ends after the mail has expired ({ladder.expire})"
            yield Finding(WARNING if late else ERROR, policy.place(*path, "retry", late), text)
        if seconds(ladder.delay_dsn) >= life:
            text = f"the delay is told after {ladder.delay_dsn}, when the mail has expired ({ladder.expire})"
            yield Finding(WARNING, policy.place(*path, "delay_dsn"), text)


def _pools(policy: Policy, known: Known) -> Iterator[Finding]:
    pools = {pool.name: pool for pool in policy.traffic.pools}
    order = tuple(pools)
    for index, pool in enumerate(policy.traffic.pools):
        path = ("pools", index)
        for number, member in enumerate(pool.sources):
            yield from _unknown(policy, (*path, "sources", number, "source"), "source", member.source, known.sources)
        names = _pool_names(policy.traffic, known)
        if pool.overflow:
            yield from _unknown(policy, (*path, "overflow"), "pool", pool.overflow, names)
        way = [pool.name]
        while (following := pools[way[-1]].overflow) in pools and following not in way:
            way.append(following)
        if following == pool.name == min(way, key=order.index):
            text = f"the overflow goes round: {' → '.join([*way, pool.name])}"
            yield Finding(ERROR, policy.place(*path, "overflow"), text)


def _streams(policy: Policy, known: Known) -> Iterator[Finding]:
    traffic = policy.traffic
    for index, stream in enumerate(traffic.streams):
        yield from _unknown(policy, ("streams", index, "name"), "stream", stream.name, known.streams)
    if sum(stream.floor for stream in traffic.streams) > 1 + 1e-9:
        yield Finding(ERROR, policy.place("streams"), "the floors of all streams together are more than 1")
    for index, tenant in enumerate(traffic.tenants):
        yield from _unknown(policy, ("tenants", index, "name"), "tenant", tenant.name, known.tenants)


def _warmup(policy: Policy, known: Known) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for index, plan in enumerate(policy.traffic.warmup):
        path = ("warmup", index)
        yield from _patterns(policy, (*path, "sources"), plan.sources)
        if not plan.sources:
            yield Finding(WARNING, policy.place(*path), f"plan {plan.name!r} has no sources: nobody goes through it")
        for number, pattern in enumerate(plan.sources):
            place = policy.place(*path, "sources", number)
            if known.sources is not None and not any(fits(pattern, source) for source in known.sources):
                text = f"there is no source {pattern!r}{nearest(pattern, tuple(known.sources))}"
                yield Finding(ERROR, place, text)
            if first := next((seen[one] for one in seen if covers(one, pattern)), ""):
                yield Finding(ERROR, place, f"{pattern!r} goes through plan {first!r} already")
            seen[pattern] = plan.name
        falls = next((n for n, (cap, after) in enumerate(pairwise(plan.day_caps)) if after < cap), None)
        if falls is not None:
            caps = f"{plan.day_caps[falls]}, then {plan.day_caps[falls + 1]}"
            yield Finding(
                WARNING, policy.place(*path, "day_caps", falls + 1), f"the caps of {plan.name!r} fall: {caps}"
            )


def _unknown(
    policy: Policy, path: tuple[str | int, ...], kind: str, name: str, there: frozenset[str] | None
) -> Iterator[Finding]:
    if there is not None and name not in there:
        yield Finding(ERROR, policy.place(*path), f"there is no {kind} {name!r}{nearest(name, tuple(there))}")


def _pool_names(traffic: Traffic, known: Known) -> frozenset[str] | None:
    own = frozenset(pool.name for pool in traffic.pools)
    return None if known.pools is None else known.pools | own
