"""What the log holds today must be understood for ever: a file for each kind of record.

A new field goes to the end and has a default. Then these files stay as they are, and new ones are added beside them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mailfleet_core.model import complaint, stats, wire
from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.wire import (
    Accepted,
    BodyRef,
    Cancelled,
    Dispatch,
    Entry,
    Envelope,
    Event,
    Member,
    Pool,
    Recipient,
    RecipientOutcome,
    Result,
    Route,
    ShardMap,
    Source,
    Suspension,
    Unit,
)  # fmt: skip
from mailfleet_router.decisions.shaping import control
from mailfleet_router.decisions.shaping.control import Command

HERE = Path(__file__).parent
ENVELOPE = Envelope(
    bytes(range(16)), "s@a.example", "acme", "bulk", "warm", BodyRef(3, (8, 900_100), 1_234_567), 1_800_000_000.5,
    1_800_432_000.5, True, True, "HDRS", "QQ+2B3", "<1@a.example>", "192.0.2.1",
)  # fmt: skip
LABELLED = msgspec.structs.replace(ENVELOPE, campaign="spring")
RECIPIENTS = (Recipient(0, "r@b.example", 6, "rfc822;r@b.example"), Recipient(4, "п@b.example"))
UNIT = Unit(bytes(range(18)), "google", ENVELOPE, RECIPIENTS, 2)
OUTCOME = RecipientOutcome(4, wire.DEFERRED, 451, "4.7.1", "greylisted", "rcpt")
ROUTE = Route("mx", ((5, "mx1.b.example"), (10, "mx2.b.example")), 25, "verify", "u", "name", 7, 0.5, 1.5, 50)
VALUES: dict[str, object] = {
    "accepted": Accepted(ENVELOPE, RECIPIENTS, ("google", "b.example")),
    "unit": UNIT,
    "entry": Entry(UNIT, 3, 1_800_000_300.0, 5, "a", 1_800_000_001.0, OUTCOME, True, "x", 2),
    "dispatch": Dispatch(UNIT, 3, 7, 4711, "a", ROUTE, True),
    "result": Result(
        UNIT.unit_id, 2, 3, wire.SETTLED, "a", 1.5, 2.5, (OUTCOME,), "mx", "192.0.2.2", "TLSv1.3", True, True
    ),
    "suspension": Suspension("maintenance", "postmaster", 1.0, 2.0),
    "member": Member("router", "http://127.0.0.1:1", 1.0, "host", 42),
    "shards": ShardMap((("a", "c"), ("b",)), (("", bytes((0, 1))), ("warm", bytes((1, 1))))),
    "source": Source("ip-1", "warm", 3, "192.0.2.9", "2001:db8::9", "ip-1.a.example", (3, 4), "socks5://egress-1:1080",
                     wire.QUARANTINED, "gentle", 1.0, "listed", "ann", 2.0),
    "pool": Pool("warm", "default", 1.0),
    "accepted-2": Accepted(LABELLED, RECIPIENTS, ("google", "b.example")),
    "unit-2": msgspec.structs.replace(UNIT, envelope=LABELLED),
    "entry-2": Entry(msgspec.structs.replace(UNIT, envelope=LABELLED), 3, 1_800_000_300.0, 5, "a", 1_800_000_001.0,
                     OUTCOME, True, "x", 2),
    "entry-3": Entry(msgspec.structs.replace(UNIT, envelope=LABELLED), cancelled=Cancelled("ended by ann", "b.example", True)),
    "dispatch-2": Dispatch(msgspec.structs.replace(UNIT, envelope=LABELLED), 3, 7, 4711, "a", ROUTE, True),
}  # fmt: skip
OLDER = {"accepted", "unit", "entry", "dispatch", "entry-2"}
"""As they were before envelopes had a campaign and entries said that they are cancelled."""
SPELLED_EVENTS = [
    Event(
        b"",
        "delivered",
        1.0,
        ((0, "r@b.example"),),
        site="google",
        code=250,
        seconds=0.5,
        by="x",
        spelled=("i", "m", "u"),
    ),
    Event(b"", "accepted", 2.0, spelled=("j", "m", "")),
]
EVENTS = [
    Event(
        UNIT.unit_id,
        wire.DELIVERED,
        1.5,
        ((0, "r@b.example"), (4, "п@b.example")),
        3,
        2,
        "acme",
        "bulk",
        "google",
        "a",
        250,
        "2.0.0",
        "ok",
        "dot",
        "mx",
        "192.0.2.2",
        "TLSv1.3",
        0.5,
        2.5,
        "x",
        "s@a.example",
        "<1@a.example>",
        "192.0.2.1",
        1_234_567,
        1_800_432_000.5,
    ),
    Event(UNIT.unit_id, "accepted", 2.0),
]


@pytest.mark.parametrize("name", VALUES)
def test_a_record_of_today_is_understood(name: str) -> None:
    data = (HERE / f"{name}.msgpack").read_bytes()
    assert wire.decode(type(VALUES[name]), data) == VALUES[name]
    assert name in OLDER or wire.encode(VALUES[name]) == data


def test_events_of_today_are_understood() -> None:
    data = (HERE / "told.msgpack").read_bytes()
    assert wire.told(data) == EVENTS
    assert wire.tell(EVENTS) == data
    assert list(wire.ends(data)) == [(UNIT.unit_id[:16], 0), (UNIT.unit_id[:16], 4)]


def test_events_that_had_their_ids_as_text_are_understood() -> None:
    events = wire.told((HERE / "events.msgpack").read_bytes())
    assert events == SPELLED_EVENTS
    assert [(event.id, event.message_id, event.unit_id) for event in events] == [("i", "m", "u"), ("j", "m", "")]


def test_commands_of_today_are_understood() -> None:
    given = Command("c1", "bounce", (("tenant", "acme"), ("domain", "b.example")), "why", "ann", 1.0, 2.0, "", True)
    data = (HERE / "command.msgpack").read_bytes()
    assert control.decode(data) == given
    assert wire.encode(given) == data


def test_stats_of_today_are_understood() -> None:
    said = stats.Stats(
        3,
        "router-a",
        1.5,
        (stats.PoolStats("warm", 5, 2, 1.0, 0.5),),
        (stats.SourceStats("a", 2, 0.25, 10, 50, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (1, 2, 3, 4, 5, 6), 3),),
        (stats.TenantStats("acme", (6.0, 5.0, 4.0, 3.0, 2.0, 1.0), (6, 5, 4, 3, 2, 1), 1),),
        (stats.Trouble("a", "google", stats.PAUSED, 2.0, "gmail-rate", "421 4.7.28 too many", 1.0),),
        4711,
        24,
    )
    data = (HERE / "stats.msgpack").read_bytes()
    assert stats.decode(data) == said
    assert stats.encode(said) == data


def test_complaints_of_today_are_understood() -> None:
    said = Complaint(2.5, 1.5, "acme", "bulk", "a", "google", "b.example", "mx1.b.example", "abuse", "b.example", 4711)
    data = (HERE / "complaint.msgpack").read_bytes()
    assert complaint.decode(data) == said
    assert complaint.encode(said) == data
    assert complaint.key(bytes(range(16)), 4) == b"complaint|00041061050R3GG28A1C60T3GF/4"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xc0", b"\x93\x01"])
def test_bytes_that_are_no_record_are_malformed(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(Entry, data)
    with pytest.raises(wire.Malformed):
        stats.decode(data)
    with pytest.raises(wire.Malformed):
        complaint.decode(data)
