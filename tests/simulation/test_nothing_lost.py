"""The whole system in one process, thousands of random histories with crashes between any two steps.

`MAILFLEET_HISTORIES` says how many; a failure prints the seed, and `World(seed)` runs that history again.
"""

from __future__ import annotations

import os

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.model import wire
from simulation.faults import MOVING_FAULTS, PARTITION_FAULTS, SENDER_FAULTS
from simulation.world import World
from support.spaces import DictSpace

HISTORIES = int(os.environ.get("MAILFLEET_HISTORIES", "2000"))


def run(seed: int, **options: object) -> World:
    world = World(seed, **options)  # type: ignore[arg-type]
    try:
        world.run()
        world.judge()
    except Exception as error:
        raise AssertionError(f"seed {seed} {options}: {error}") from error
    return world


PARTS = 10
"""In parts, so that a slow machine does not run into the time limit of a test."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_accepted_recipient_ends_exactly_once(part: int) -> None:
    for seed in range(part, HISTORIES * 2 // 3, PARTS):
        run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_without_a_sender_that_dies_nothing_is_delivered_twice(part: int) -> None:
    for seed in range(part, HISTORIES // 3, PARTS):
        run(seed, senders_die=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_units_that_do_not_fit_into_memory_end_as_the_others(part: int) -> None:
    before, histories = DictSpace.written, 0
    for seed in range(part, HISTORIES // 3, PARTS):
        run(seed, spills=True)
        histories += 1
    assert DictSpace.written - before > 10 * histories


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_limits_pauses_and_warm_up_hold_mail_up_and_lose_none(part: int) -> None:
    told = 0
    for seed in range(part, HISTORIES // 4, PARTS):
        events = run(seed, shaped=True).log.line(topics.EVENTS, 0).after(0, 1_000_000)
        told += sum(event.kind == "shaping" for _, _, _, value in events if value for event in wire.told(value))
    assert told, "nothing was ever slowed or paused"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_sources_that_come_and_go_lose_nothing_and_repeat_nothing(part: int) -> None:
    closed = 0
    for seed in range(part, HISTORIES // 4, PARTS):
        # Where no sender dies nothing may even be in doubt.
        world = run(seed, moving=True, senders_die=seed % 3 == 0)
        closed += sum(record[1].startswith(b"source|") for record in world.log.line(topics.CONTROL, 0).records) > 6
    assert closed, "no source ever came or went"


FIRST_SEEDS_TRIED = 4000


def caught(**options: object) -> bool:
    """Does one of the first histories show this fault?"""
    for seed in range(FIRST_SEEDS_TRIED):
        try:
            run(seed, **options)
        except AssertionError:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("fault", PARTITION_FAULTS, ids=lambda fault: fault.__name__)
def test_a_router_with_a_planted_fault_is_caught(fault: type) -> None:
    assert caught(make=fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", MOVING_FAULTS)
def test_a_sender_with_a_planted_fault_about_sources_is_caught(fault: str) -> None:
    assert caught(faults=frozenset({fault}), moving=True, senders_die=False)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SENDER_FAULTS)
def test_a_sender_with_a_planted_fault_is_caught(fault: str) -> None:
    assert caught(faults=frozenset({fault}))
