"""How much a new source may send to a provider today: a plan of growing days, and what yesterday says about the next step.

A state belongs to a source and a provider (or, where a site has none, the site). Its days and hours are those of UTC. What is
to be sent is reserved first, in blocks: a block counts as sent from the moment that it is in the state, so the state need be
durable only once per block, and whoever takes over forfeits the rest of a block instead of sending it twice. A day or an hour
that the clock has left comes never back: a clock that steps back finds nothing to give until it has caught up.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mailfleet_core.model.wire import Struct
from mailfleet_router.decisions.shaping.values import Citation, Spec

DAY, HOUR = 86400, 3600
"""Seconds."""

UNLIMITED = 2**62
"""The cap of a source that is through with its plan."""

BIG_FOUR = ("google", "microsoft", "yahoo", "apple")
"""Providers that take the whole of a plan; others get OTHERS_SHARE of it, since they see less mail of anybody. Our design."""
OTHERS_SHARE = 0.5

USED_SHARE = 0.9
"""So much of the cap must have been delivered for the next stage (SparkPost, see CONSERVATIVE)."""
HOLD_DEFERRED, BACK_DEFERRED = 0.05, 0.10
"""From these shares of deferrals on a stage is held, and above the second one left backwards. Our design."""
LEAST_DEFERRED = 10
"""Fewer deferrals than so many lead no stage back. Our design, as for reputation."""
HOLD_COMPLAINTS = 0.001
"""From this share of complaints on a stage is held: Gmail's line, https://support.google.com/a/answer/81126, read 2026-11-22."""
STAGES_BACK = 2
IDLE_SHARE = 0.1
"""A day with less than so much of its cap is idle: volume has fallen. Our design."""
IDLE_DAYS = 3
"""So many idle days cost a stage. Amazon SES lowers its percentage when volume drops, without saying how fast:
https://docs.aws.amazon.com/ses/latest/dg/managed-dedicated-sending.html, read 2026-11-22."""
RESTART_DAYS = 30
"""After so many days without mail it begins anew: https://www.twilio.com/docs/sendgrid/concepts/reputation/warm-up-ip-addresses,
read 2026-11-22."""
BLOCKS_PER_DAY = 100
"""Into so many blocks a day's cap is cut."""


class Plan(Spec, frozen=True):
    """Messages a day, stage after stage; after the last there is no limit."""

    name: str
    day_caps: tuple[int, ...]
    hour_share: float = 0.2
    """The part of a day's cap that one hour may use (60 of 300, 100 of 510, and so on:
    https://help.mailtrap.io/article/98-ip-warmup, read 2026-11-22)."""
    citation: Citation | None = None

    def cap(self, stage: int) -> int:
        """Messages on a day of this stage."""
        return self.day_caps[stage] if stage < len(self.day_caps) else UNLIMITED

    def hour_cap(self, stage: int) -> int:
        """Messages in an hour of a day of this stage."""
        return max(1, int(self.cap(stage) * self.hour_share + 1e-9)) if stage < len(self.day_caps) else UNLIMITED

    def for_provider(self, provider: str) -> Plan:
        """The plan as it holds for a provider; empty: a site of its own."""
        if provider in BIG_FOUR:
            return self
        return msgspec.structs.replace(self, day_caps=tuple(max(1, int(cap * OTHERS_SHARE)) for cap in self.day_caps))


CONSERVATIVE = Plan(
    name="conservative",
    day_caps=(
        200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000,
        325_000, 400_000, 500_000, 600_000, 750_000, 1_000_000, 1_250_000, 1_750_000, 2_000_000, 3_000_000, 4_250_000,
        5_000_000, 6_000_000, 7_500_000, 10_000_000,
    ),
    citation=Citation(
        url="https://github.com/SparkPost/support-docs/blob/003c99996b6fc814f763371c7a44245405dd39e9/content/docs/user-guide/automated-ip-warmup.md",
        date="2026-11-22",
    ),
)  # fmt: skip
"""SparkPost's stages; the page prints the 28th as "7,50,000"."""

LINEAR_45 = Plan(
    name="linear-45",
    day_caps=tuple(50_000 * day // 45 for day in range(1, 46)),
    citation=Citation(
        url="https://aws.amazon.com/about-aws/whats-new/2017/03/amazon-ses-can-now-automatically-warm-up-your-dedicated-ip-addresses/",
        date="2026-11-22",
    ),
)
"""Amazon SES's: to 50,000 a day within 45 days. The page says "gradually"; the straight line is ours."""

GEOMETRIC = Plan(
    name="geometric-1.4",
    day_caps=tuple(24 * round(20 * 1.4**day) for day in range(36)),
    hour_share=1 / 24,
    citation=Citation(url="https://docs.sendgrid.com/ui/sending-email/warming-up-an-ip-address", date="2026-11-22"),
)
"""SendGrid's: 20 an hour on day 0, 1.4 times as many each day, to day 35."""

PLANS = {plan.name: plan for plan in (CONSERVATIVE, LINEAR_45, GEOMETRIC)}


class State(Struct, frozen=True):
    """Where a source is in its plan, and what it did today."""

    stage: int
    day: int
    """Of UTC, as `now // DAY`."""
    hour: int
    """Of UTC, as `now // HOUR`; never before the day."""
    sent: int = 0
    """Today, with all that is reserved."""
    sent_hour: int = 0
    delivered: int = 0
    deferred: int = 0
    complaints: int = 0
    blocks: int = 0
    idle: int = 0
    """Idle days up to yesterday, without a break."""
    silent: int = 0
    """And days without any mail."""
    began: float = 0.0
    """When this warm-up began, if somebody said so; in seconds since 1970."""


class Block(NamedTuple):
    """Messages that were reserved and may be sent in one hour."""

    left: int
    hour: int
    day: int


class Allowance(NamedTuple):
    """What may be reserved now; when it is nothing, when there is more, and why not now."""

    messages: int
    until: float
    reason: str


class Decision(Struct, frozen=True):
    """What a day's turn did, and everything it rests on (of the day that ended)."""

    at: float
    plan: str
    action: str
    """`advance`, `hold`, `back`, `decay` or `restart`."""
    before: int
    after: int
    cap: int
    day: State
    slow: bool
    """Reputation held the stage."""
    reason: str


def start(now: float, began: float = 0.0) -> State:
    """A new source."""
    return State(0, int(now // DAY), int(now // HOUR), began=began)


def restart(state: State, began: float) -> State:
    """The same source at the beginning of another warm-up. What it sent today stays sent."""
    return State(0, state.day, state.hour, state.sent, state.sent_hour, began=began)


def turn(state: State, plan: Plan, now: float, slow: bool = False) -> tuple[State, Decision | None]:
    """The state of the day of `now`, and what the turn decided; nothing happens within a day or when the clock is back.

    `slow`: the reputation of the source at this provider lets it gain no stage.
    """
    today = int(now // DAY)
    if today <= state.day:
        return state, None
    action, stage, reason = _next(state, plan, slow)
    full = max(0, min(state.stage, len(plan.day_caps) - 1))
    unbroken = state.sent < plan.cap(full) * IDLE_SHARE
    between = today - state.day - 1
    idle = between + (state.idle + 1 if unbroken else 0)
    silent = between + (0 if state.sent else state.silent + 1)
    lost = idle // IDLE_DAYS - (state.idle // IDLE_DAYS if unbroken else 0)
    if silent >= RESTART_DAYS and stage:
        action, stage, reason = "restart", 0, f"{silent} days without mail: it begins anew"
    elif lost > 0 and stage:
        action, stage = "decay", max(0, stage - lost)
        reason = f"{idle} idle days (less than {IDLE_SHARE:.0%} of the cap) cost {lost} stages; before: {reason}"
    decision = Decision(now, plan.name, action, state.stage, stage, plan.cap(state.stage), state, slow, reason)
    return State(stage, today, int(now // HOUR), idle=idle, silent=silent, began=state.began), decision


def allowance(state: State, plan: Plan, now: float) -> Allowance:
    """What may be reserved at `now`. The day must have been turned."""
    day, hour = int(now // DAY), int(now // HOUR)
    if day > state.day:
        return Allowance(0, now, "the day has not been turned")
    if day < state.day or hour < state.hour:
        return Allowance(0, float(state.hour * HOUR), "the clock went back behind the hour that was last used")
    day_left = plan.cap(state.stage) - state.sent
    hour_left = plan.hour_cap(state.stage) - (state.sent_hour if hour == state.hour else 0)
    where = f"stage {state.stage + 1} of warm-up plan {plan.name}"
    if day_left <= 0:
        return Allowance(
            0, float((day + 1) * DAY), f"{where}: all {plan.cap(state.stage)} messages of the day are used"
        )
    if hour_left <= 0:
        until = float((hour + 1) * HOUR)
        return Allowance(0, until, f"{where}: all {plan.hour_cap(state.stage)} messages of the hour are used")
    return Allowance(min(day_left, hour_left), now, f"{where}: {state.sent} of {plan.cap(state.stage)} used today")


def block_size(state: State, plan: Plan) -> int:
    """How many to reserve at once: what a takeover may forfeit, and one write is worth."""
    return max(1, min(plan.cap(state.stage) // BLOCKS_PER_DAY, 10_000))


def reserve(state: State, plan: Plan, now: float, most: int) -> tuple[State, Block]:
    """Up to `most` messages for the present hour. To be durable before the first of them is dispatched."""
    hour = int(now // HOUR)
    granted = max(0, min(most, allowance(state, plan, now).messages))
    if not granted:
        return state, Block(0, state.hour, state.day)
    used = state.sent_hour if hour == state.hour else 0
    counted = msgspec.structs.replace(state, sent=state.sent + granted, sent_hour=used + granted, hour=hour)
    return counted, Block(granted, hour, state.day)


def take(block: Block, now: float) -> Block | None:
    """The block without the one message that is dispatched now; None: it is empty or its hour is not the present one."""
    return block._replace(left=block.left - 1) if block.left > 0 and int(now // HOUR) == block.hour else None


def give_back(block: Block) -> Block:
    """The block after a message that was taken from it was not sent after all."""
    return block._replace(left=block.left + 1)


def release(state: State, block: Block) -> State:
    """The state with what is left of a block, whose hour ended or whose owner stops. Only the owner may do so, once."""
    if block.left <= 0 or block.day != state.day:
        return state
    in_hour = block.left if block.hour == state.hour else 0
    return msgspec.structs.replace(state, sent=state.sent - block.left, sent_hour=state.sent_hour - in_hour)


def settled(state: State, field: str, count: int = 1) -> State:
    """`count` more `delivered`, `deferred`, `complaints` or `blocks`; they belong to the day they are told, not to that
    of the attempt. It is durable with the next block (a delivery that a takeover forgets gains no stage); a reply of a block
    class is worth a write of its own."""
    return msgspec.structs.replace(state, **{field: getattr(state, field) + count})


def encode(value: State | Decision) -> bytes:
    """The bytes for a compacted topic."""
    return msgspec.msgpack.encode(value)


decode_state = msgspec.msgpack.Decoder(State).decode
decode_decision = msgspec.msgpack.Decoder(Decision).decode


def _next(state: State, plan: Plan, slow: bool) -> tuple[str, int, str]:
    """What yesterday alone says: action, stage and why."""
    stages = len(plan.day_caps)
    stage = min(state.stage, stages)
    answered = state.delivered + state.deferred
    deferred = state.deferred / answered if answered else 0.0
    complained = state.complaints / state.delivered if state.delivered else 0.0
    back = max(0, stage - STAGES_BACK)
    if state.blocks:
        return "back", back, f"{state.blocks} replies of a block class"
    if deferred > BACK_DEFERRED and state.deferred >= LEAST_DEFERRED:
        return "back", back, f"{deferred:.1%} deferred, more than {BACK_DEFERRED:.0%}"
    if deferred >= HOLD_DEFERRED:
        return "hold", stage, f"{deferred:.1%} deferred, {HOLD_DEFERRED:.0%} or more"
    if state.complaints and complained >= HOLD_COMPLAINTS:
        return (
            "hold",
            stage,
            f"{state.complaints} complaints about {state.delivered} delivered, {HOLD_COMPLAINTS:.1%} or more",
        )
    if slow:
        return "hold", stage, "the reputation is slow"
    if stage == stages:
        return "hold", stage, "the plan is completed"
    if state.delivered < plan.cap(stage) * USED_SHARE:
        return "hold", stage, f"{state.delivered} of {plan.cap(stage)} delivered, less than {USED_SHARE:.0%}"
    return "advance", stage + 1, f"{state.delivered} of {plan.cap(stage)} delivered, {deferred:.1%} deferred"
