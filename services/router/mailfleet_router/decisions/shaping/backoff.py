"""How much slower than its limits a scope is for now: halved by hits, paused, probed, raised again while it is clean.

All instants are seconds of one clock that never steps. Nothing here depends on how often `tick` is called: `limits_now`
computes the same without it. The same event seen twice changes nothing more, because a change is only ever made by an
event that is newer than the change before (and, for pauses and probes, by an attempt begun after it); so events of one
scope may be folded again from any earlier point, in order of time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

FLOOR_PER_SECOND = 1.0 / 60.0
"""The rate of a probe: one message a minute, on one connection (docs/decisions/0005-shaping.md)."""
HALVE_SECONDS = 60.0
"""At most one halving in so long: the replies to what was under way already are one piece of news."""
STEP_SECONDS = 600.0
"""So long without a hit brings a tenth of the ceiling back."""
WHOLE, STEP = 1000, 100
"""The factor is kept in thousandths, so that ticks do not round."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 300.0, 14_400.0
"""Pauses double between these: 5, 10, 20 … 240 minutes."""
FORGET_SECONDS = 3600.0
"""The least time without a hit, after a pause, that lets pauses start again at the shortest."""
CONNECTIONS = 20
"""The ceiling of connections where none is configured: the default of a route."""
MAX_REPLY = 300
"""Letters of the reply that are kept to explain."""


class Struct(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frozen value that is a MessagePack array: fields are only ever added at the end, with a default."""


class BackOff(Struct, frozen=True):
    """What hits have done to one scope. The default is that of a scope without any."""

    factor: int = WHOLE
    """Thousandths of the ceiling at `since`."""
    since: float = 0.0
    """From when on clean time counts: the newest hit, the end of a probe, or the newest tenth that came back."""
    halved_at: float = -HALVE_SECONDS
    observed_per_second: float = 0.0
    """The rate when it was first slowed: the ceiling where none is configured."""
    paused_until: float = 0.0
    pause_seconds: float = 0.0
    """Length of the newest pause."""
    probing: bool = False
    """Paused, or no attempt begun after `probe_from` has succeeded yet."""
    probe_from: float = 0.0
    cap_per_second: float = 0.0
    """A rule's own rate until `cap_until`; 0: none."""
    cap_connections: int = 0
    cap_until: float = 0.0
    hit_at: float = 0.0
    """The newest hit."""
    rule: str = ""
    """Of the hit that changed something last."""
    reply: str = ""
    pause_told: bool = False
    """`tick` has said that the pause is over."""
    whole: bool = False
    """Nothing was said about the pace: when the probe is accepted, all is as it was."""


class Hit(NamedTuple):
    """A reply whose rule reached its threshold."""

    at: float
    """When the reply came."""
    started_at: float
    """When the attempt began."""
    pause: bool
    """`pause` and `disable_source`; otherwise `slow`."""
    rule: str
    reply: str
    rate_per_second: float = 0.0
    """What the scope has lately sent: the ceiling from now on, where none is configured and nothing was slowed yet."""
    ttl_seconds: float = 0.0
    """How long `to_*` hold; the shortest that a pause is, up to 240 minutes."""
    to_per_second: float = 0.0
    to_connections: int = 0
    whole: bool = False
    """A pause that says nothing about the pace."""


class Configured(NamedTuple):
    """The limits of the policy; 0: none."""

    rate_per_second: float = 0.0
    connections: int = 0


class Limits(NamedTuple):
    """What holds now."""

    rate_per_second: float
    """0: unlimited."""
    connections: int
    paused_until: float
    """0: not paused. While paused there is no attempt at all."""
    probing: bool
    """One connection and one message a minute until an attempt succeeds."""


class Change(NamedTuple):
    """A change, for people: events, logs and "why is it waiting"."""

    what: str
    why: str
    until: float
    """When what it says ends or changes by itself; 0: not by itself."""
    next: str


def hit(state: BackOff, event: Hit) -> tuple[BackOff, Change | None]:
    """The state after a hit. Seen twice, or seen late, it changes nothing that a newer one has decided."""
    state = _capped(_grown(state, event.at), event)
    last_hit_at = state.hit_at
    state = msgspec.structs.replace(
        state, hit_at=max(last_hit_at, event.at), since=max(state.since, event.at) if _slow(state) else state.since
    )
    if event.pause:
        return _paused(state, event, last_hit_at)
    return _halved(state, event)


def clean(state: BackOff, started_at: float, at: float) -> tuple[BackOff, Change | None]:
    """The state after a success of an attempt begun at `started_at`: it ends a probe and nothing else."""
    if not state.probing or started_at < state.probe_from or at < state.paused_until:
        return state, None
    state = msgspec.structs.replace(state, probing=False, pause_told=True, since=max(state.since, at))
    if state.whole:
        state = msgspec.structs.replace(state, factor=WHOLE, whole=False, observed_per_second=0.0)
        return state, Change("the probe came through", _why(state), 0.0, "back to the limits of the policy")
    until = state.since + STEP_SECONDS
    return state, Change("the probe was accepted", _why(state), until, "a tenth more each 10 minutes without a hit")


def tick(state: BackOff, now: float) -> tuple[BackOff, Change | None]:
    """The state at `now`, and what has changed by itself since the last tick: for those who are told."""
    if state.paused_until and now >= state.paused_until and not state.pause_told:
        state = msgspec.structs.replace(state, pause_told=True)
        return state, Change("probing", _why(state), 0.0, "one message a minute until one is accepted")
    grown = _grown(state, now)
    if grown.factor == state.factor:
        return state, None
    if grown.factor == WHOLE:
        return grown, Change("back to the limits of the policy", _why(state), 0.0, "")
    what = f"raised to {grown.factor / 10:g} %"
    return grown, Change(what, _why(state), grown.since + STEP_SECONDS, "a tenth more after 10 minutes without a hit")


def limits_now(state: BackOff, configured: Configured, now: float) -> Limits:
    """The limits of the scope at `now`: never above the configured ones, never slower than a probe but in a pause."""
    ceiling = configured.rate_per_second or max(state.observed_per_second, FLOOR_PER_SECOND)
    connections = configured.connections or CONNECTIONS
    floor = min(FLOOR_PER_SECOND, ceiling)
    if now < state.paused_until:
        return Limits(floor, 0, state.paused_until, True)
    factor = _grown(state, now).factor
    rate, allowed = max(floor, ceiling * factor / WHOLE), max(1, connections * factor // WHOLE)
    if state.probing:
        rate, allowed = floor, 1
    elif factor == WHOLE:
        rate, allowed = configured
    if now < state.cap_until:
        rate, allowed = _lower(rate, state.cap_per_second), int(_lower(allowed, state.cap_connections))
    return Limits(rate, allowed, 0.0, state.probing)


def restored(state: BackOff, now: float) -> BackOff:
    """The state as a new owner takes it up: never faster than it was.

    A pause goes on; what was slowed is probed again before it is as fast as it was, and its clean time counts anew.
    """
    state = _grown(_sane(state, now), now)
    if not _slow(state):
        return state
    return msgspec.structs.replace(
        state, probing=True, probe_from=max(state.probe_from, state.paused_until, now), since=max(state.since, now)
    )


def _sane(state: BackOff, now: float) -> BackOff:
    # Of a writer whose clock was days ahead: nothing lasts longer than it would have lasted had it begun now.
    return msgspec.structs.replace(
        state,
        since=min(state.since, now + (state.pause_seconds if state.paused_until > now else 0.0)),
        halved_at=min(state.halved_at, now),
        paused_until=min(state.paused_until, now + state.pause_seconds),
        probe_from=min(state.probe_from, now + state.pause_seconds),
        hit_at=min(state.hit_at, now),
    )


def is_over(state: BackOff, now: float) -> bool:
    """May the state be forgotten? Not while it limits anything, or remembers how long the next pause must be."""
    state = _grown(state, now)
    return not _slow(state) and now >= state.cap_until and now - state.hit_at >= _forget_after(state)


def encode(state: BackOff) -> bytes:
    """The bytes of a state, for a compacted topic."""
    return _encode(state)


def decode(data: bytes) -> BackOff:
    """The state in `data`, also of older and newer versions. Raises msgspec.DecodeError or ValidationError."""
    return _decode(data)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(BackOff).decode


def _slow(state: BackOff) -> bool:
    return state.factor < WHOLE or state.probing


def _grown(state: BackOff, now: float) -> BackOff:
    # Whole tenths that clean time has brought back; a clock that went back brings nothing.
    if state.factor >= WHOLE or state.probing or now < state.since + STEP_SECONDS:
        return state
    steps = min(int((now - state.since) / STEP_SECONDS), WHOLE // STEP)
    factor = min(WHOLE, state.factor + steps * STEP)
    return msgspec.structs.replace(
        state,
        factor=factor,
        since=state.since + steps * STEP_SECONDS,
        observed_per_second=0.0 if factor == WHOLE else state.observed_per_second,
    )


def _capped(state: BackOff, event: Hit) -> BackOff:
    until = event.at + event.ttl_seconds
    in_force = state.cap_until > event.at
    if event.pause or not (event.to_per_second or event.to_connections):
        return state
    if until < state.cap_until or (until == state.cap_until and not in_force):
        return state
    return msgspec.structs.replace(
        state,
        cap_per_second=_lower(event.to_per_second, state.cap_per_second if in_force else 0.0),
        cap_connections=int(_lower(event.to_connections, state.cap_connections if in_force else 0)),
        cap_until=until,
    )


def _lower(one: float, other: float) -> float:
    return min(one, other) if one and other else one or other


def _halved(state: BackOff, event: Hit) -> tuple[BackOff, Change | None]:
    if event.at < state.halved_at + HALVE_SECONDS:
        return state, None
    if state.factor == 0:
        return msgspec.structs.replace(state, halved_at=event.at), None
    fresh = not _slow(state)
    state = msgspec.structs.replace(
        state,
        factor=state.factor // 2,
        since=max(state.since, event.at),
        halved_at=event.at,
        observed_per_second=event.rate_per_second if fresh else state.observed_per_second,
        rule=event.rule,
        reply=event.reply[:MAX_REPLY],
    )
    what = f"slowed to {state.factor / 10:g} %"
    until = max(state.since + STEP_SECONDS, state.cap_until)
    return state, Change(what, _why(state), until, "a tenth more after 10 minutes without a hit")


def _paused(state: BackOff, event: Hit, last_hit_at: float) -> tuple[BackOff, Change | None]:
    if state.paused_until and event.started_at < state.paused_until:
        return state, None  # It was under way when the pause began: no news.
    length = _pause_length(state, event, last_hit_at)
    until = event.at + length
    state = msgspec.structs.replace(
        state,
        factor=0,
        since=until,
        halved_at=max(state.halved_at, event.at),
        observed_per_second=state.observed_per_second if _slow(state) else event.rate_per_second,
        paused_until=until,
        pause_seconds=length,
        pause_told=False,
        probing=True,
        whole=event.whole and (state.whole or not _slow(state)),
        probe_from=max(state.probe_from, until),
        rule=event.rule,
        reply=event.reply[:MAX_REPLY],
    )
    return state, Change(
        f"paused for {length / 60:g} minutes", _why(state), until, "then one message a minute as a probe"
    )


def _pause_length(state: BackOff, event: Hit, last_hit_at: float) -> float:
    clean_seconds = event.at - max(state.paused_until, last_hit_at)
    again = state.pause_seconds > 0 and clean_seconds < _forget_after(state)
    length = state.pause_seconds * 2 if again else MIN_PAUSE_SECONDS
    return min(max(length, event.ttl_seconds, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)


def _forget_after(state: BackOff) -> float:
    return max(state.pause_seconds, FORGET_SECONDS)


def _why(state: BackOff) -> str:
    return f"{state.rule}: {state.reply}"
