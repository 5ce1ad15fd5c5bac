"""One partition, fed by hand."""

from __future__ import annotations

from mailfleet_core.model import ids, wire
from mailfleet_core.model.tags import CLAIM, EPOCH_KEY, PUT, tag
from mailfleet_router.decisions.journal import DECODED_UNITS
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping.control import Controls

EPOCH = 8
POLICY = Policy(pools={"default": (("a", 1),)}, lanes={"a": (0,)})


def live() -> Partition:
    partition = Partition(0, 1, POLICY, Routing(POLICY), Controls())
    partition.claimed(EPOCH, 0)
    partition.fold([(EPOCH, EPOCH_KEY, tag(CLAIM), b"")], 0.0)
    partition.restore(0.0)
    partition.resume(0.0)
    partition.routing.answered("b.example", "mx", ((10, "mx.b.example"),), 0.0)
    return partition


def put(number: int) -> tuple[int, bytes, bytes, bytes]:
    message = ids.message_id(number, bytes(10))
    envelope = wire.Envelope(message, "s@a.example", "t", "bulk", "default", wire.BodyRef(0, (8,), 1), 0.0, 1e9)
    unit = wire.Unit(ids.unit_id(message, 0), "mx.b.example", envelope, (wire.Recipient(0, "r@b.example"),))
    return EPOCH + 1 + number, unit.unit_id, tag(PUT), wire.encode(wire.Entry(unit))


def came_back(number: int, append: Append) -> tuple[int, bytes, bytes, bytes | None]:
    return EPOCH + 100_000 + number, append.key, append.tag, append.value


def attempts(partition: Partition, units: int) -> list[Append]:
    partition.fold([put(number) for number in range(units)], 0.0)
    partition.tick(0.0)
    return list(partition.take().own)


def test_records_of_ours_are_acted_on_as_they_come_back() -> None:
    partition = live()
    partition.fold([came_back(number, own) for number, own in enumerate(attempts(partition, 3))], 0.0)
    assert len(partition.take().dispatches) == 3
    assert not partition.stopped


def test_an_owner_stops_where_a_record_of_its_own_is_missing_before_another() -> None:
    partition = live()
    first, _, third = attempts(partition, 3)
    partition.fold([came_back(0, first), came_back(2, third)], 0.0)
    assert partition.stopped
    assert not partition.take().dispatches


def test_a_long_queue_is_not_kept_decoded() -> None:
    partition = live()
    attempts(partition, DECODED_UNITS + 300)
    assert sum(held.entry is not None for held in partition.ledger.units.values()) <= DECODED_UNITS
