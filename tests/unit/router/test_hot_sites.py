"""Hot sites in the router's shell: units find their shard, each source stays in one, and a new map moves what waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.model import wire
from mailfleet_core.model.shards import KEY, shard_of
from mailfleet_core.model.site import partition_of
from mailfleet_router.decisions.shaping.control import command
from mailfleet_router.decisions.shaping.sharding import plan
from support import fleet as building

SITE = "mx.example.org"
NAMES = ("a", "b", "c", "d")
POOLS = {"default": [(name, 1) for name in NAMES]}
SETTINGS: dict[str, object] = {
    "source": [{"name": name} for name in NAMES],
    "pool": [{"name": "default", "sources": [{"source": name, "weight": 1} for name in NAMES]}],
}


@pytest.fixture
async def fleet() -> AsyncIterator[building.Fleet]:
    async with building.fleet(dict(SETTINGS)) as it:
        # The policy asks for nothing here; the tests write the maps.
        it.router._sharding.look = lambda: None  # type: ignore[method-assign]
        yield it


async def divide(fleet: Any, shards: int) -> wire.ShardMap:
    known = fleet.router._tools.control.shards.get(SITE)
    found = plan(known.map if known else None, shards, NAMES, POOLS)
    await fleet.bus.append(topics.CONTROL, 0, KEY + SITE.encode(), wire.encode(found), topics.tag(topics.PUT))
    await fleet.until(lambda: fleet.router._tools.control.shards.get(SITE, (0, None))[1] == found)
    return found


def ended(fleet: Any, units: list[bytes]) -> bool:
    return all("delivered" in fleet.kinds(unit) for unit in units)


async def test_mail_of_a_hot_site_goes_by_the_shards_each_with_its_own_sources(fleet: Any) -> None:
    found = await divide(fleet, 4)
    units = [await fleet.put() for _ in range(40)]
    await fleet.until(lambda: ended(fleet, units))
    used: dict[int, set[str]] = {}
    for work in fleet.dispatches:
        shard = shard_of(work.unit.site)
        assert shard is not None
        assert work.queue_partition == partition_of(work.unit.site, 4)
        used.setdefault(work.queue_partition, set()).add(work.source)
        assert work.source in found.sources[shard.place]
    assert len(used) == 4
    assert sum(len(sources) for sources in used.values()) == len(set().union(*used.values()))
    assert len(fleet.dispatches) == len(units)


async def test_people_see_the_site_and_not_its_shards(fleet: Any) -> None:
    await divide(fleet, 2)
    unit = await fleet.put()
    await fleet.until(lambda: ended(fleet, [unit]))
    assert {event.site for event in fleet.events(unit)} == {SITE}


async def test_what_waits_moves_when_the_map_changes_and_is_delivered_once(fleet: Any) -> None:
    await divide(fleet, 2)
    about = {"site": SITE}
    stop = command("c1", "suspend", about, "test", "me", 1.0)
    await fleet.bus.append(topics.CONTROL, 0, b"command|c1", wire.encode(stop), topics.tag(topics.PUT))
    units = [await fleet.put() for _ in range(30)]
    await divide(fleet, 4)
    await divide(fleet, 3)
    await fleet.bus.append(topics.CONTROL, 0, b"command|c1", None, topics.tag(topics.PUT))
    await fleet.until(lambda: ended(fleet, units))
    assert sorted(work.unit.unit_id for work in fleet.dispatches) == sorted(units)
    newest = fleet.router._tools.control.shards[SITE].number
    late = [shard_of(work.unit.site) for work in fleet.dispatches]
    assert any(shard is not None and shard.number == newest for shard in late)


async def test_a_source_that_goes_to_another_shard_is_used_there_when_it_was_given_back(fleet: Any) -> None:
    await divide(fleet, 1)
    first = [await fleet.put() for _ in range(10)]
    await fleet.until(lambda: ended(fleet, first))
    await divide(fleet, 4)
    fleet.dispatches.clear()
    second = [await fleet.put() for _ in range(40)]
    await fleet.until(lambda: ended(fleet, second))
    assert {work.queue_partition for work in fleet.dispatches} == {0, 1, 2, 3}
    assert {work.source for work in fleet.dispatches} == set(NAMES)


async def test_the_policy_makes_a_site_hot_with_one_shard_first(tmp_path: Any) -> None:
    own = tmp_path / "policy.yaml"
    own.write_text("version: 1\nsites:\n  - site: mx.example.org\n    shards: 4\n")
    async with building.fleet({**SETTINGS, "router": {"policy_file": str(own)}}) as it:
        await it.until(lambda: SITE in it.router._tools.control.shards)
        assert len(it.router._tools.control.shards[SITE].map.sources) == 1
        unit = await it.put()
        await it.until(lambda: ended(it, [unit]))
