"""What clients hand in during the day, in order of time."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple

from mailfleet_core.model import ids, wire
from mailfleet_router.decisions.shaping.values import seconds
from simulation.day.scenario import DAY_SECONDS, MIDNIGHT, Campaign, Scenario, of_day
from simulation.day.town import Quarter

FULL_SHARE = 0.002
"""Of recipients whose mailbox has no room for the whole day."""


class Mail(NamedTuple):
    """One mail as the queue gets it."""

    at: float
    partition: int
    key: bytes
    value: bytes


def mails(scenario: Scenario, towns: list[Quarter], partition: int) -> Iterator[Mail]:
    """The mails of one queue partition. They are the same whatever else is simulated in the same process."""
    streams = [_stream(scenario, towns[partition], partition, number) for number in range(len(scenario.campaigns))]
    return heapq.merge(*streams)


def tally_of(unit: bytes) -> tuple[int, int, int]:
    """(campaign, receiver, number within the partition's campaign) of a unit, which its id says."""
    return unit[7], unit[8], int.from_bytes(unit[9:13], "big")


def is_stuck(unit: bytes) -> bool:
    """Is it for a mailbox that has no room the whole day?"""
    return bool(unit[13])


def count_of(scenario: Scenario, town: Quarter, campaign: Campaign) -> int:
    """How many mails of a campaign one partition gets."""
    return round(scenario.mails * campaign.share / 100.0 * (town.weights[-1] if town.weights else 0.0))


def _stream(scenario: Scenario, town: Quarter, partition: int, number: int) -> Iterator[Mail]:
    campaign = scenario.campaigns[number]
    rng = Random(f"{scenario.seed} {partition} {number}")
    count, life = count_of(scenario, town, campaign), seconds(campaign.life)
    domains, weights = town
    whole = weights[-1] if weights else 0.0
    for index, at in enumerate(_instants(scenario, campaign, count, rng)):
        domain = domains[bisect_right(weights, rng.random() * whole, 0, len(weights) - 1)]
        local = _local_part(campaign, rng)
        full = local.startswith("full")
        entropy = bytes((partition, number, domain.receiver)) + index.to_bytes(4, "big") + bytes((full, 0, 0))
        message = ids.message_id(at, entropy)
        envelope = wire.Envelope(
            message_id=message, reverse_path=f"bounces@{campaign.tenant}.example", tenant=campaign.tenant,
            stream=campaign.stream, pool=campaign.pool, body=wire.BodyRef(0, (index,), 8192), accepted_at=at,
            expires_at=at + life,
        )  # fmt: skip
        recipient = wire.Recipient(0, f"{local}@{domain.name}")
        unit = wire.Unit(message + b"\0\0", domain.site, envelope, (recipient,))
        yield Mail(at, partition, unit.unit_id, wire.encode(wire.Entry(unit)))


def _local_part(campaign: Campaign, rng: Random) -> str:
    """The mailbox says what becomes of the mail, so that the receiver need not remember it."""
    draw = rng.random()
    if draw < campaign.unknown:
        return f"gone{rng.randrange(1_000_000)}"
    if draw < campaign.unknown + campaign.spam:
        return f"spam{rng.randrange(1_000_000)}"
    if draw > 1.0 - FULL_SHARE:
        return f"full{rng.randrange(1_000_000)}"
    return f"u{rng.randrange(10_000_000)}"


def _instants(scenario: Scenario, campaign: Campaign, count: int, rng: Random) -> Iterator[float]:
    """`count` instants in order, one in each of `count` parts of the curve's area."""
    if campaign.curve:
        hours = scenario.curves[campaign.curve]
        start, step = MIDNIGHT, DAY_SECONDS / len(hours)
    else:
        hours = (1.0,)
        start, step = MIDNIGHT + of_day(campaign.begins), seconds(campaign.lasts)
    ends = list(accumulate(hours))
    hour = 0
    for index in range(count):
        area = (index + rng.random()) / count * ends[-1]
        while area >= ends[hour] and hour < len(hours) - 1:
            hour += 1
        yield start + step * (hour + 1 - (ends[hour] - area) / hours[hour])
