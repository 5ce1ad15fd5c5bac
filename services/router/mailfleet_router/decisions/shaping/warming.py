"""The warm-up of an owner's new sources: what may be sent is reserved in the log first, block by block."""

from __future__ import annotations

import msgspec

from mailfleet_core.model.wire import DEFERRED, DELIVERED
from mailfleet_router.decisions.shaping import warmup
from mailfleet_router.decisions.shaping.warmup import UNLIMITED, Block, Decision, Plan, State

WRITING_SECONDS = 0.2
"""When to look again while a reservation is being written."""


class Warm:
    """One source at one provider."""

    __slots__ = ("block", "decision", "key", "plan", "reserved", "state")

    def __init__(self, key: str, plan: Plan, state: State) -> None:
        self.key = key
        self.plan = plan
        self.state = state
        self.block = Block(0, state.hour, state.day)
        """What is durable and may be sent."""
        self.reserved: Block | None = None
        """What is being written."""
        self.decision: Decision | None = None

    def begin(self, began: float) -> None:
        """If another warm-up began since this one did, it is that one's beginning now."""
        if self.state.began < began:
            state = warmup.release(self.state, self.block)
            self.state, self.reserved = warmup.restart(state, began), None
            self.block = Block(0, state.hour, state.day)

    def allowance(self, now: float) -> int:
        """Messages that may go now."""
        if self.state.stage >= len(self.plan.day_caps):
            return UNLIMITED
        return self.block.left if int(now // warmup.HOUR) == self.block.hour else 0

    def wants(self, now: float) -> bool:
        """Is it time to reserve more?"""
        return self.reserved is None and self.allowance(now) <= warmup.block_size(self.state, self.plan) // 2

    def turn(self, now: float, slow: bool) -> None:
        """Begin a new day, if there is one."""
        self.state, decision = warmup.turn(self.state, self.plan, now, slow)
        self.decision = decision or self.decision

    def reserve(self, now: float) -> bytes | None:
        """The state to write with one more block in it; None: there is nothing more to have now."""
        state = self.state
        if int(now // warmup.HOUR) != self.block.hour:
            state = warmup.release(state, self.block)
            self.block = Block(0, state.hour, state.day)
        self.state, block = warmup.reserve(state, self.plan, now, warmup.block_size(state, self.plan))
        if not block.left:
            return None
        self.reserved = block
        return warmup.encode(self.state)

    def durable(self) -> None:
        """What was reserved is in the log."""
        if self.reserved is not None:
            same = self.block.hour == self.reserved.hour
            self.block = self.reserved._replace(left=self.reserved.left + (self.block.left if same else 0))
            self.reserved = None

    def take(self, now: float) -> None:
        """A message goes."""
        self.block = warmup.take(self.block, now) or self.block

    def answered(self, verdict: str, blocked: bool) -> None:
        """What became of a recipient."""
        field = "blocks" if blocked else {DELIVERED: "delivered", DEFERRED: "deferred"}.get(verdict)
        if field:
            self.state = warmup.settled(self.state, field)

    def complained(self) -> None:
        """A recipient has complained."""
        self.state = warmup.settled(self.state, "complaints")

    def more_at(self, now: float) -> float:
        """When there is more allowance."""
        more = warmup.allowance(self.state, self.plan, now)
        return now + WRITING_SECONDS if self.reserved or more.messages else more.until

    def reason(self, now: float) -> str:
        """Why it may not send more now, for people."""
        return warmup.allowance(self.state, self.plan, now).reason


def begun(key: str, plan: Plan, written: bytes | None, now: float, began: float = 0.0) -> Warm:
    """The warm-up of a key: new, or as the last owner left it. What that one had reserved and not used is forfeited."""
    try:
        state = warmup.decode_state(written) if written else warmup.start(now, began)
    except msgspec.MsgspecError:
        state = warmup.start(now, began)
    warm = Warm(key, plan, state)
    warm.begin(began)
    return warm
