"""A running router whose sources come from the log."""

from __future__ import annotations

import asyncio

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import wire
from mailfleet_core.model.wire import DRAINING, Pool, Source
from mailfleet_router.decisions.shaping import control
from support.fleet import Fleet, fleet

FROM_LOG = {"egress": {"sources": "control"}}
ONE, TWO = Source("ip-1", "default", lanes=(1,)), Source("ip-2", "default", lanes=(2,))


def draining(source: Source, reason: str) -> Source:
    return Source(source.name, source.pool, lanes=source.lanes, state=DRAINING, reason=reason, by="ann")


async def say(it: Fleet, *sources: Source) -> None:
    for source in sources:
        await it.bus.append(topics.CONTROL, 0, b"source|" + source.name.encode(), wire.encode(source))


async def delivered(it: Fleet, unit: bytes) -> str:
    """By which source."""
    await it.until(lambda: "delivered" in it.kinds(unit))
    return next(event.source for event in it.events(unit) if event.kind == "delivered")


async def test_mail_waits_until_there_is_a_source_and_goes_at_once_by_it() -> None:
    async with fleet(FROM_LOG) as it:
        unit = await it.put()
        await it.until(lambda: "held" in it.kinds(unit))
        (held,) = [event for event in it.events(unit) if event.kind == "held"]
        assert (held.by, held.text) == ("sources", "pool default has no source with a lane")
        await say(it, ONE)
        assert await delivered(it, unit) == "ip-1"
        assert it.dispatches[-1].source == "ip-1"


async def test_what_waits_goes_by_another_source_and_the_story_says_who_closed_the_first() -> None:
    async with fleet(FROM_LOG) as it:
        await say(it, draining(ONE, "new network"))
        unit = await it.put()
        await it.until(lambda: "held" in it.kinds(unit))
        held = [event.text for event in it.events(unit) if event.kind == "held"]
        assert held[-1] == "pool default has no source that takes mail: ip-1 is draining: new network (ann)"
        await say(it, TWO)
        assert await delivered(it, unit) == "ip-2"


async def test_sources_that_were_there_before_the_start_are_known_before_mail_is_routed() -> None:
    async with fleet(FROM_LOG) as it:
        await say(it, ONE, draining(TWO, ""))
        await it.bus.append(topics.CONTROL, 0, b"pool|default", wire.encode(Pool("default", "spare")))
        await it.until(lambda: bool(it.router._table.named_pools))
        assert await delivered(it, await it.put()) == "ip-1"
        assert it.router._tools.policy.overflow("default") == "spare"


async def test_a_source_of_a_lane_that_there_is_not_gets_no_mail_and_stops_nobody() -> None:
    async with fleet(FROM_LOG) as it:
        await say(it, Source("ip-9", "default", 100, lanes=(99,)), ONE)
        assert await delivered(it, await it.put()) == "ip-1"
        await it.bus.append(topics.CONTROL, 0, b"source|ip-9", b"\x93\x01")
        assert await delivered(it, await it.put()) == "ip-1"


async def test_mail_parked_by_a_suspended_source_goes_when_another_source_comes() -> None:
    async with fleet(FROM_LOG) as it:
        await say(it, ONE, draining(TWO, ""))
        now = SystemClock.now()
        said = control.command("c1", control.SUSPEND, {"source": "ip-1"}, "they asked", "ann", now, 0.0)
        await it.bus.append(topics.CONTROL, 0, b"command|c1", wire.encode(said))
        await it.until(lambda: bool(it.router._tools.controls))
        unit = await it.put()
        await it.until(lambda: "held" in it.kinds(unit))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.until(lambda: "attempted" in it.kinds(unit)), 0.2)
        await say(it, TWO)
        assert await delivered(it, unit) == "ip-2"
