"""A rate with a burst as one instant: the generic cell rate algorithm (ITU-T I.371, virtual scheduling).

The state is the instant at which all messages that were taken have been paid for. What lies between it and `now`, times the
rate, is the debt in messages; a message may go while the debt with it is no more than the burst. Rates are messages per
second, bursts are messages (at least one), instants are seconds of a clock that counts from the start of the process or
the machine: with the seconds since 1970 a double is too coarse for thousands of messages a second.
"""

from __future__ import annotations

import math

BURST_SECONDS = 0.1
"""Without a burst in the policy a tenth of a second's worth may go at once, and at least one message."""

SLACK_SECONDS = 1e-6
"""So much too early is in time: a sum of two doubles is not exact, and a wait that was slept must suffice."""

LEAST_RATE = 1e-9
"""Messages per second, one in thirty years: at a rate of 0 the debt is kept by this one."""


def default_burst(rate: float) -> float:
    """The burst, in messages, of a rate for which none is set."""
    return max(1.0, rate * BURST_SECONDS)


def empty(rate: float, burst: float, now: float) -> float:
    """A bucket that has just given its whole burst: how a new owner starts, who does not know what the old one sent."""
    return now + max(1.0, burst) / max(rate, LEAST_RATE)


def take(state: float, rate: float, burst: float, now: float) -> tuple[float, float]:
    """Take one message if that is allowed: the new state and 0, else the same state and the seconds to wait."""
    wait = peek(state, rate, burst, now)
    return (state, wait) if wait else (_one_more(state, rate, now), 0.0)


def peek(state: float, rate: float, burst: float, now: float) -> float:
    """Seconds until one message may be taken; 0: now, infinite: not at this rate."""
    if rate <= 0:
        return math.inf
    wait = state - (max(1.0, burst) - 1.0) / rate - now
    return wait if wait > SLACK_SECONDS else 0.0


def reserve(state: float, rate: float, burst: float, now: float) -> tuple[float, float]:
    """Take one message in any case: the new state and the seconds after which it may go. For a positive rate."""
    return _one_more(state, rate, now), peek(state, rate, burst, now)


def give_back(state: float, rate: float) -> float:
    """The state without one of the messages that were taken and did not go. More than the burst is never given back."""
    return state - 1.0 / max(rate, LEAST_RATE)


def changed(state: float, old: float, new: float, now: float) -> float:
    """The state after the rate has changed from `old` to `new`: the debt in messages stays, nothing is refilled."""
    debt = max(0.0, state - now) * max(old, LEAST_RATE)
    return now + debt / max(new, LEAST_RATE)


def _one_more(state: float, rate: float, now: float) -> float:
    begin, period = max(state, now), 1.0 / max(rate, LEAST_RATE)
    paid = begin + period
    # Rounded down a little each time, ten thousand messages in a row would be one too many.
    return paid if paid - begin >= period else math.nextafter(paid, math.inf)
