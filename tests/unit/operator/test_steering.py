"""One look at a pool, from resources and statistics to statuses, records and children."""

from __future__ import annotations

from typing import Any

import msgspec

from mailfleet_core.model import fleet, reputation, wire
from mailfleet_core.model.stats import Trouble
from mailfleet_operator.decisions import life, resources
from mailfleet_operator.decisions.conditions import FALSE, TRUE, Verdict
from mailfleet_operator.decisions.lanes import Held
from mailfleet_operator.decisions.membership import Belonging, belongings, conflicts, naming
from mailfleet_operator.decisions.records import gone
from mailfleet_operator.decisions.status import Look, to_write
from mailfleet_operator.decisions.steering import Known, Room, Steering, View, held, steer

RIGHT = {kind: Verdict(TRUE, "Verified") for kind in life.CHECKS}
NO_PTR = RIGHT | {life.PTR: Verdict(FALSE, "NoPTR", "no PTR")}
NOW = 1_000_000.0


def pool(status: dict[str, Any] | None = None, **spec: Any) -> resources.Pool:
    whole = {
        "egress": {"mode": "HostNetwork"},
        "sources": [{"name": "ip-1"}],
        "spares": ["ip-9"],
        "warmupPlan": "conservative",
        **spec,
    }
    return resources.pool(
        {
            "metadata": {"name": "tx", "namespace": "mail", "uid": "u", "generation": 2},
            "spec": whole,
            "status": status or {},
        }
    )


def address(name: str = "ip-1", status: dict[str, Any] | None = None, **spec: Any) -> resources.Address:
    whole = {"address": "192.0.2.1", "hostname": "mx1.example.org", **spec}
    return resources.address(
        {"metadata": {"name": name, "namespace": "mail", "generation": 1}, "spec": whole, "status": status or {}}
    )


def stats(
    name: str = "ip-1", *, complained: float = 0.0, delivered: float = 1000.0, per_second: float = 0.0
) -> fleet.Source:
    weights = [0.0] * 6
    weights[reputation.DELIVERED], weights[reputation.COMPLAINED] = delivered, complained
    seen = [int(weight) for weight in weights]
    return fleet.Source(name, reputation.read(weights, seen), 0, per_second)


class World:
    """What the shell keeps: statuses, the log, the lanes that have ready senders."""

    def __init__(self, pool_now: resources.Pool, *known: Known) -> None:
        self.pool, self.known, self.now = pool_now, list(known), NOW
        self.told: dict[str, wire.Source] = {}
        self.empty: frozenset[int] = frozenset(range(8))
        self.demand: fleet.Pool | None = fleet.Pool("tx")
        self.tenants: tuple[fleet.Tenant, ...] = ()
        self.troubles: tuple[Trouble, ...] = ()
        self.fit: tuple[str, ...] = ()
        self.ready = True

    def look(self, after: float = 1.0) -> Steering:
        self.now += after
        self.known = [each._replace(told=self.told.get(each.address.name)) for each in self.known]
        room = Room({each.address.name: held(each.address, each.told) for each in self.known}, self.empty, 8, 30.0)
        view = View(self.pool, self.known, room, self.demand, self.tenants, self.troubles, self.fit)
        found = steer(view, self.now)
        for number, each in enumerate(self.known):
            status = found.addresses[each.address.name]
            again = msgspec.structs.replace(
                each.address, status=msgspec.convert(status, resources.AddressStatus), raw_status=status
            )
            lanes = found.present[each.address.name].held.lanes
            self.known[number] = each._replace(address=again, ready_lanes=frozenset(lanes if self.ready else ()))
        for name, record in found.records.items():
            self.told.pop(name, None) if record is None else self.told.update({name: record})
        if found.pool is not None:
            status_now = msgspec.convert(found.pool, resources.PoolStatus)
            self.pool = msgspec.structs.replace(self.pool, status=status_now, raw_status=found.pool)
        return found

    def change(self, name: str, **fields: Any) -> None:
        self.known = [each._replace(**fields) if each.address.name == name else each for each in self.known]


def known(name: str = "ip-1", *, spare: bool = False, checks: Any = RIGHT, **more: Any) -> Known:
    return Known(address(name), Look(checks, NOW), Belonging("tx", spare), stats=stats(name), **more)


def conditions(status: dict[str, Any] | None) -> dict[str, tuple[str, str]]:
    assert status is not None
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def test_an_address_gets_a_lane_and_the_log_hears_of_it_when_its_sender_is_there() -> None:
    world = World(pool(), known())
    world.ready = False
    world.look()
    second = world.look()
    assert second.present["ip-1"].held.lanes == (0,)
    assert world.told["ip-1"].lanes == ()
    assert conditions(second.pool)["Ready"] == ("False", "WaitingForSenders")
    world.ready = True
    world.look()
    third = world.look()
    assert world.told["ip-1"] == wire.Source(
        "ip-1", "tx", 100, "192.0.2.1", ehlo_name="mx1.example.org", lanes=(0,), by="operator", at=world.told["ip-1"].at
    )
    assert conditions(third.pool)["Ready"] == ("True", "AllReady")
    assert (third.pool or {})["senderSummary"] == "1/1"
    assert world.look().records == {}


def test_a_lost_ptr_drains_the_source_and_its_lane_is_kept_until_it_is_empty() -> None:
    world = World(pool(), known())
    for _ in range(4):
        world.look()
    world.change("ip-1", look=Look(NO_PTR, NOW))
    world.empty = frozenset()
    found = world.look()
    assert (world.told["ip-1"].state, world.told["ip-1"].lanes, world.told["ip-1"].reason) == ("draining", (), "NoPTR")
    assert found.addresses["ip-1"]["releasing"][0]["lane"] == 0
    assert conditions(found.addresses["ip-1"])["Ready"] == ("False", "NoPTR")
    assert [event.reason for event in found.events][:2] == ["NoPTR", "ScaledDown"]
    assert world.look(1000).present["ip-1"].held == Held((), ((0, found.present["ip-1"].life.since),))
    world.empty = frozenset({0})
    assert world.look().present["ip-1"].held == Held()
    assert conditions(world.look().pool)["Ready"] == ("False", "NoUsableSource")


def test_a_lane_is_not_free_while_the_log_still_says_it_is_the_sources() -> None:
    released = {"state": "Draining", "releasing": [{"lane": 0, "since": "1970-01-01T00:00:01Z"}]}
    told = wire.Source("ip-1", "tx", lanes=(0,), by="operator")
    one = Known(address(status=released), Look(NO_PTR, NOW), Belonging("tx", False), told, stats())
    room = Room({"ip-1": held(one.address, told)}, frozenset({0}), 8, 30.0)
    first = steer(View(pool(), [one], room, fleet.Pool("tx")), NOW)
    assert first.present["ip-1"].held.all == {0}
    again = one._replace(told=first.records["ip-1"])
    assert steer(View(pool(), [again], room, fleet.Pool("tx")), NOW).present["ip-1"].held.all == frozenset()


def test_a_spare_comes_by_preflight_and_warms_up_under_its_plan() -> None:
    world = World(pool(), known())
    for _ in range(3):
        world.look()
    world.change("ip-1", look=Look(NO_PTR, NOW))
    world.fit = ("ip-9",)
    world.look()
    taken = world.look(31)
    assert taken.plan is not None
    assert taken.plan.take == "ip-9"
    assert "SpareTaken" in [event.reason for event in taken.events]
    found = belongings([world.pool], {"ip-1": address(), "ip-9": address("ip-9")})
    assert found["ip-9"] == Belonging("tx", True)
    world.known.append(
        Known(address("ip-9", address="192.0.2.9"), Look(RIGHT, NOW), found["ip-9"], stats=stats("ip-9"))
    )
    world.fit = ()
    for _ in range(4):
        world.look()
    record = world.told["ip-9"]
    assert (record.state, record.warmup, record.pool, record.address) == ("active", "conservative", "tx", "192.0.2.9")
    assert record.started_at > 0
    assert world.known[1].address.status.state == "Warming"


def test_what_single_sites_hold_only_shows() -> None:
    world = World(pool(), known())
    for _ in range(4):
        world.look()
    world.troubles = (Trouble("ip-1", "site-b", "quarantine", world.now + 600, "reputation", "550 blocked", world.now),)
    found = world.look()
    assert found.addresses["ip-1"]["state"] == "Active"
    assert found.addresses["ip-1"]["sites"][0]["reply"] == "550 blocked"
    assert world.told["ip-1"].state == "active"


def test_the_operator_says_no_when_the_list_is_the_trouble() -> None:
    world = World(pool(), known())
    for _ in range(4):
        world.look()
    sour = stats(complained=30.0, delivered=4000.0)
    world.change("ip-1", stats=sour)
    world.tenants = (fleet.Tenant("acme", sour.reading),)
    found = world.look()
    limited = next(each for each in (found.pool or {})["conditions"] if each["type"] == "ScalingLimited")
    assert limited["reason"] == "Reputation"
    assert "more IPs will not help; complaints" in limited["message"]
    assert "from tenant acme; fix the list" in limited["message"]
    event = next(event for event in found.events if event.reason == "Reputation")
    assert "ready 0" in event.message
    assert [event for event in world.look().events if event.reason == "Reputation"] == []


def test_without_statistics_nothing_of_a_running_pool_changes() -> None:
    world = World(pool(), known())
    for _ in range(4):
        world.look()
    before = dict(world.told)
    world.demand = None
    world.change("ip-1", stats=None)
    found = world.look()
    assert world.told == before
    assert conditions(found.pool)["ScalingLimited"] == ("Unknown", "Fallback")


def test_a_retired_source_goes_from_the_log_a_minute_after_it_was_told() -> None:
    world = World(pool(), known())
    for _ in range(4):
        world.look()
    was = world.known[0].address
    world.change("ip-1", address=msgspec.structs.replace(was, spec=msgspec.structs.replace(was.spec, state="Retired")))
    world.look()
    assert world.told["ip-1"].state == "draining"
    world.look(31)
    world.look()
    assert world.told["ip-1"].state == "retired"
    world.look(61)
    assert "ip-1" not in world.told


def test_a_source_whose_resource_is_gone_gives_up_its_lanes_first() -> None:
    told = wire.Source("ip-1", "tx", lanes=(3,), at=NOW)
    first = gone(told, NOW + 1)
    assert first is not None
    assert (first.state, first.lanes) == ("retired", ())
    assert gone(first, NOW + 30) == first
    assert gone(first, NOW + 62) is None


def test_a_source_is_of_one_pool_and_the_other_is_told() -> None:
    old = msgspec.structs.replace(pool(), name="old", created_at=1.0)
    young = msgspec.structs.replace(pool(), name="young", created_at=2.0)
    addresses = {"ip-1": address()}
    found = belongings([young, old], addresses)
    assert found == {"ip-1": Belonging("old", False)}
    assert conflicts(young, found, addresses) == ("ip-1 belongs to pool old",)
    assert conflicts(old, found, {}) == ("there is no SendingIP ip-1",)
    assert naming([young, old]) == {"ip-1": ["old", "young"], "ip-9": ["old", "young"]}


def test_figures_alone_are_written_only_now_and_then() -> None:
    before = {"state": "Active", "score": 90, "conditions": [{"type": "Ready", "status": "True", "message": "90"}]}
    after = {"state": "Active", "score": 91, "conditions": [{"type": "Ready", "status": "True", "message": "91"}]}
    assert not to_write(before, after, 100, 120, 30)
    assert to_write(before, after, 100, 130, 30)
    assert to_write(before, after | {"state": "Slow"}, 100, 101, 30)
    assert not to_write(before, before, 0, 1000, 30)


def test_a_site_that_begins_to_hold_an_address_is_no_mere_figure() -> None:
    slowed, paused = ({"state": "Active", "sites": [{"site": "a", "state": state}]} for state in ("slowed", "paused"))
    longer = {"state": "Active", "sites": [{"site": "a", "state": "paused", "until": "2026-11-22T12:00:00Z"}]}
    assert not to_write({"state": "Active"}, slowed, 100, 101, 30)
    assert to_write(slowed, paused, 100, 101, 30)
    assert to_write(paused, slowed, 100, 101, 30)
    assert not to_write(paused, longer, 100, 101, 30)


def test_that_an_address_was_looked_at_again_is_written_once_an_hour() -> None:
    before = {"state": "Active", "score": 90, "lastChecked": "2026-11-01T00:00:00Z"}
    after = before | {"lastChecked": "2026-11-01T00:05:00Z"}
    assert not to_write(before, after, 0, 3599, 30)
    assert to_write(before, after, 0, 3600, 30)
    assert to_write(before, after | {"score": 91}, 0, 30, 30)


def test_on_a_pods_own_network_the_system_chooses_the_address() -> None:
    world = World(pool(egress={"mode": "PodNetwork"}), known())
    for _ in range(4):
        world.look()
    assert (world.told["ip-1"].address, world.told["ip-1"].ehlo_name) == ("", "mx1.example.org")
