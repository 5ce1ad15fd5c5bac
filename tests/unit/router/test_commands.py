"""Commands over the units of a partition that is fed by hand: nobody is held, ended or tried who is not meant."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import ids, wire
from mailfleet_core.model.tags import CLAIM, DONE, EPOCH_KEY, PUT, RETRY, tag
from mailfleet_router.decisions.carrying import MOST_RECORDS, SLICE_UNITS, WAITING
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.partition import PUMP_UNITS, Partition
from mailfleet_router.decisions.policy import LAST_RESORT, Ladder, Policy, Rule
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping.control import Command, Controls, command

EPOCH = 8
POLICY = Policy(
    ladders={"bulk": Ladder((300.0,), 0.0)},
    pools={"default": (("a", 1), ("b", 1)), "spare": (("c", 1),)},
    lanes={"a": (0,), "b": (1,), "c": (2,)},
    rules=(Rule(("r1.example", "r2.example"), wire.Route("smart_host", ((0, "relay"),)), "relay"), LAST_RESORT),
)
DOMAINS = ("b.example", "c.example", "r1.example")


class Desk:
    """A partition, its log and its senders, all in the test's hands."""

    def __init__(self, controls: Controls | None = None) -> None:
        self.controls = controls or Controls()
        self.now, self.end = 1000.0, EPOCH + 1
        self.events: list[wire.Event] = []
        self.reports: list[Any] = []
        self.dispatches: list[wire.Dispatch] = []
        self.written: list[Append] = []
        self.numbers = 0
        self.results = 0
        self.partition = self.owner()

    def owner(self) -> Partition:
        """One that has folded everything so far and is live."""
        partition = Partition(0, 1, POLICY, Routing(POLICY), self.controls)
        partition.claimed(EPOCH, 0)
        partition.fold([(EPOCH, EPOCH_KEY, tag(CLAIM), b"")], self.now)
        partition.restore(self.now)
        partition.resume(self.now)
        for domain in DOMAINS:
            partition.routing.answered(domain, "mx", ((10, f"mx.{domain}"),), self.now)
        return partition

    def put(self, *addresses: str, **fields: Any) -> bytes:
        """A unit comes; its id."""
        addresses = addresses or ("r@b.example",)
        self.numbers += 1
        message = ids.message_id(self.now, self.numbers.to_bytes(10, "big"))
        values = {"tenant": "t", "stream": "bulk", "pool": "default", "accepted_at": self.now, **fields}
        envelope = wire.Envelope(
            message, "s@a.example", body=wire.BodyRef(0, (8,), 1), expires_at=self.now + 1e6, **values
        )  # fmt: skip
        recipients = tuple(wire.Recipient(index, address) for index, address in enumerate(addresses))
        site = "relay" if addresses[0].rpartition("@")[2][0] == "r" else f"mx.{addresses[0].rpartition('@')[2]}"
        unit = wire.Unit(ids.unit_id(message, 0), site, envelope, recipients)
        self.partition.fold([(self.offset(), unit.unit_id, tag(PUT), wire.encode(wire.Entry(unit)))], self.now)
        return unit.unit_id

    def offset(self) -> int:
        self.end += 1
        return self.end

    def give(self, action: str, until: float = 0.0, to: str = "", quiet: bool = False, **about: str) -> str:
        """A command comes; its id."""
        self.numbers += 1
        said = command(f"c{self.numbers}", action, about, "because", "ann", self.now, until, to)
        self.set(said.id, msgspec.structs.replace(said, quiet=quiet))
        return said.id

    def set(self, identifier: str, said: Command | None) -> None:
        self.controls.set(identifier, said)
        self.partition.commanded(self.now)

    def turn(self) -> None:
        """What the shell does between two looks at the log; what was written has come back at its end."""
        partition = self.partition
        partition.tick(self.now)
        out = partition.take()
        for name in out.asks:
            partition.routing.answered(name, "mx", ((10, f"mx.{name}"),), self.now)
            partition.resolved(name, self.now)
        self.events += out.events
        self.reports += out.reports
        self.dispatches += [wire.decode(wire.Dispatch, put.value) for put in out.dispatches if put.value]
        self.written += out.own
        partition.fold([(self.offset(), put.key, put.tag, put.value) for put in out.own], self.now)
        partition.durable(out.batch)
        for report in out.reports:
            partition.carried_out(report.token)

    def rest(self, turns: int = 6) -> None:
        """Turns until nothing is to do."""
        for _ in range(turns):
            self.turn()

    def answer(self, work: wire.Dispatch, verdict: str) -> None:
        """The sender's result."""
        code = {wire.DELIVERED: 250, wire.DEFERRED: 451}[verdict]
        outcomes = tuple(
            wire.RecipientOutcome(r.index, verdict, code, f"{code // 100}.0.0", "said", "dot")
            for r in work.unit.recipients
        )
        result = wire.Result(
            work.unit.unit_id, work.unit.hop, work.attempt, wire.SETTLED, work.source, self.now, self.now, outcomes
        )
        self.results += 1
        self.partition.results([(self.results, work.unit.unit_id, tag(PUT), wire.encode(result))], self.now)

    def kinds(self, unit: bytes) -> list[str]:
        return [event.kind for event in self.events if event.unit == unit]


@pytest.mark.parametrize(
    "about",
    [
        {"tenant": "t"}, {"stream": "bulk"}, {"campaign": "spring"}, {"domain": "b.example"}, {"site": "mx.b.example"},
        {"pool": "default"}, {"tenant": "t", "domain": "b.example"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_suspended_waits_is_told_once_and_goes_on_without_an_attempt_used_up(about: dict[str, str]) -> None:
    desk = Desk()
    given = desk.give("suspend", until=9000.0, **about)
    held = desk.put(campaign="spring")
    other = desk.put("r@c.example", tenant="u", stream="news", pool="spare")
    desk.rest()
    assert [work.unit.unit_id for work in desk.dispatches] == [other]
    (event,) = [event for event in desk.events if event.kind == "held"]
    assert (event.unit, event.by, event.until) == (held, "ann", 9000.0)
    assert "because" in event.text
    desk.now += 3000.0
    desk.set(given, None)
    desk.rest()
    assert [(work.unit.unit_id, work.attempt) for work in desk.dispatches] == [(other, 1), (held, 1)]


def test_a_message_is_suspended_by_its_id() -> None:
    desk = Desk()
    one, two = desk.put(), desk.put()
    desk.give("suspend", message=ids.text(one[:16]))
    desk.rest()
    assert [work.unit.unit_id for work in desk.dispatches] == [two]


def test_what_is_over_lets_go() -> None:
    desk = Desk()
    desk.give("suspend", until=1100.0, tenant="t")
    held = desk.put()
    desk.rest()
    assert not desk.dispatches
    assert desk.controls.lapse(1100.5)
    desk.partition.commanded(1100.5)
    desk.rest()
    assert [work.unit.unit_id for work in desk.dispatches] == [held]


def test_a_suspended_source_is_left_out_and_mail_waits_only_when_there_is_no_other() -> None:
    desk = Desk()
    first = desk.give("suspend", source="a", site="mx.b.example")
    for _ in range(6):
        desk.put()
    desk.rest()
    assert {work.source for work in desk.dispatches} == {"b"}
    desk.give("suspend", source="b")
    held = desk.put()
    desk.put("r@c.example")
    desk.rest()
    assert desk.kinds(held) == ["accepted", "queued", "held"]
    assert desk.dispatches[-1].source == "a"
    desk.set(first, None)
    desk.rest()
    assert (desk.dispatches[-1].unit.unit_id, desk.dispatches[-1].source) == (held, "a")


def test_rerouted_mail_goes_from_the_other_pool_until_that_is_over() -> None:
    desk = Desk()
    given = desk.give("reroute", to="spare", tenant="t")
    desk.put()
    desk.put(tenant="u")
    desk.rest()
    assert [work.source == "c" for work in desk.dispatches] == [True, False]
    desk.set(given, None)
    desk.put()
    desk.rest()
    assert desk.dispatches[-1].source != "c"


def test_retry_now_tries_deferred_mail_once_on_the_same_rung() -> None:
    desk = Desk()
    unit = desk.put()
    desk.rest()
    desk.answer(desk.dispatches[-1], wire.DEFERRED)
    desk.rest()
    desk.now += 10.0
    desk.give("retry", domain="b.example")
    desk.rest()
    assert [work.attempt for work in desk.dispatches] == [1, 2]
    desk.answer(desk.dispatches[-1], wire.DEFERRED)
    desk.rest()
    desk.partition.commanded(desk.now)
    desk.rest(20)
    assert len(desk.dispatches) == 2
    entry = wire.decode(wire.Entry, desk.partition.ledger.units[unit].raw)
    assert (entry.rung, entry.due_at) == (2, desk.now + 300.0)


def test_retry_now_asks_the_dns_anew_and_uses_up_no_rung() -> None:
    desk = Desk()
    desk.partition.routing.answered("b.example", "temporary", (), 90_000.0)
    desk.now = 90_000.0
    unit = desk.put()
    desk.rest()
    assert desk.kinds(unit)[-1] == "deferred"
    desk.now += 1.0
    desk.give("retry", tenant="t")
    desk.rest()
    assert [work.unit.unit_id for work in desk.dispatches] == [unit]
    assert desk.kinds(unit).count("deferred") == 1


def test_a_bounce_ends_what_waits_before_it_is_told_and_tells_the_sender() -> None:
    desk = Desk()
    deferred = desk.put(campaign="spring")
    desk.rest()
    desk.answer(desk.dispatches[-1], wire.DEFERRED)
    desk.rest()
    desk.give("bounce", campaign="spring")
    later = desk.put(campaign="spring", accepted_at=desk.now + 1)
    desk.rest()
    (event,) = [event for event in desk.events if event.kind == "cancelled"]
    assert (event.unit, event.enhanced, event.phase) == (deferred, "5.7.1", "command")
    assert event.text == "ended by ann: because"
    assert [report.entry.unit.unit_id for report in desk.reports] == [deferred]
    kinds = [(put.key, put.tag[:1]) for put in desk.written]
    assert kinds.index((deferred, RETRY)) < kinds.index((deferred, DONE))
    assert deferred not in desk.partition.ledger.units
    assert desk.dispatches[-1].unit.unit_id == later


def test_a_quiet_bounce_tells_no_sender() -> None:
    desk = Desk()
    desk.give("suspend", tenant="t")
    unit = desk.put()
    desk.give("bounce", tenant="t", quiet=True)
    desk.rest()
    assert desk.kinds(unit)[-1] == "cancelled"
    assert not desk.reports


@pytest.mark.parametrize(("verdict", "end"), [(wire.DEFERRED, "cancelled"), (wire.DELIVERED, "delivered")])
def test_what_is_in_a_senders_hands_ends_by_command_only_if_it_comes_back(verdict: str, end: str) -> None:
    desk = Desk()
    unit = desk.put()
    desk.rest()
    desk.give("bounce", tenant="t")
    desk.rest()
    assert "cancelled" not in desk.kinds(unit)
    desk.answer(desk.dispatches[-1], verdict)
    desk.rest()
    assert desk.kinds(unit)[-1] == end
    assert len(desk.dispatches) == 1


def test_of_a_unit_of_several_domains_only_the_one_that_is_meant_ends() -> None:
    desk = Desk()
    desk.give("suspend", tenant="t")
    unit = desk.put("x@r1.example", "y@r2.example", "z@r1.example")
    desk.give("bounce", domain="r1.example")
    desk.rest()
    (event,) = [event for event in desk.events if event.kind == "cancelled"]
    assert [address for _, address in event.recipients] == ["x@r1.example", "z@r1.example"]
    for given_ in list(desk.controls):
        desk.set(given_.id, None)
    desk.rest()
    assert [recipient.address for recipient in desk.dispatches[-1].unit.recipients] == ["y@r2.example"]
    assert desk.dispatches[-1].unit.unit_id == unit


def test_a_new_owner_ends_what_the_command_is_about() -> None:
    desk = Desk()
    records = []
    desk.partition.fold = lambda batch, now: records.extend(batch)  # type: ignore[method-assign]
    unit = desk.put()
    desk.controls.set("c", command("c", "bounce", {"tenant": "t"}, "because", "ann", desk.now))
    partition = Partition(0, 1, POLICY, Routing(POLICY), desk.controls)
    partition.claimed(EPOCH + 50, 0)
    partition.fold([*records, (EPOCH + 50, EPOCH_KEY, tag(CLAIM), b"")], desk.now)
    partition.restore(desk.now)
    partition.resume(desk.now)
    desk.partition, desk.end = partition, EPOCH + 51
    desk.rest()
    assert desk.kinds(unit)[-1] == "cancelled"
    assert not desk.dispatches


ABOUT = st.dictionaries(
    st.sampled_from(["tenant", "domain", "campaign", "site", "stream"]),
    st.sampled_from(["t", "u", "b.example", "c.example", "r1.example", "spring", "mx.b.example", "relay", "bulk"]),
    min_size=1, max_size=2,
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["t", "u"]), st.sampled_from(DOMAINS), st.sampled_from(["", "spring"])),
        st.tuples(st.just("give"), st.sampled_from(["suspend", "bounce", "reroute", "retry"]), ABOUT),
        st.tuples(st.just("take back"), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.sampled_from([0.0, 0.0, 10.0, 400.0])),
        st.tuples(st.just("answer"), st.sampled_from([wire.DELIVERED, wire.DEFERRED])),
    ),
    min_size=5, max_size=40,
)  # fmt: skip


def meant(given_: Command, event: wire.Event, envelope: wire.Envelope) -> bool:
    values = {
        "tenant": event.tenant, "stream": event.stream, "campaign": envelope.campaign, "site": event.site,
        "domain": event.recipients[0][1].rpartition("@")[2],
    }  # fmt: skip
    return envelope.accepted_at <= given_.at and all(values[name] == value for name, value in given_.about)


@given(STEPS)
def test_every_unit_ends_once_and_by_a_command_only_if_one_meant_it(steps: list[tuple[Any, ...]]) -> None:
    desk, open_, bounces, units = Desk(), list[wire.Dispatch](), list[Command](), dict[bytes, wire.Envelope]()
    seen = 0
    for step in steps:
        if step[0] == "put":
            key = desk.put(f"r@{step[2]}", tenant=step[1], campaign=step[3])
            units[key] = wire.decode(wire.Entry, desk.partition.ledger.units[key].raw).unit.envelope
        elif step[0] == "give":
            identifier = desk.give(step[1], to="spare" if step[1] == "reroute" else "", **step[2])
            bounces += [one for one in desk.controls if one.id == identifier and one.action == "bounce"]
        elif step[0] == "take back" and step[1] < len(list(desk.controls)):
            desk.set(list(desk.controls)[step[1]].id, None)
        elif step[0] == "answer" and open_:
            desk.answer(open_.pop(0), step[1])
        elif step[0] == "turn":
            desk.now += step[1]
            desk.turn()
        open_ += desk.dispatches[seen:]
        seen = len(desk.dispatches)
    for given_ in list(desk.controls):
        if given_.action != "bounce":
            desk.set(given_.id, None)
    standing = [one for one in desk.controls if one.action == "bounce"]
    waiting = {key for key, held in desk.partition.ledger.units.items() if held.state in WAITING}
    for _ in range(12):
        for work in open_:
            desk.answer(work, wire.DELIVERED)
        desk.now += 100.0
        desk.rest()
        open_, seen = desk.dispatches[seen:], len(desk.dispatches)
    ends = Counter(event.unit for event in desk.events if event.kind in wire.TERMINAL_KINDS)
    assert ends == Counter(dict.fromkeys(units, 1))
    tried = Counter(work.unit.unit_id for work in desk.dispatches)
    for event in desk.events:
        if event.kind in wire.TERMINAL_KINDS:
            envelope = units[event.unit]
            assert event.attempt == tried[event.unit], "a command used up an attempt"
            if event.kind == "cancelled":
                assert any(meant(one, event, envelope) for one in bounces)
            else:
                assert event.unit not in waiting or not any(meant(one, event, envelope) for one in standing)


def test_a_purge_of_a_hundred_thousand_units_is_one_record_and_delays_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk, count = Desk(), 100_000
    desk.give("suspend", campaign="spring")
    for _ in range(count):
        desk.put(campaign="spring")
    while not desk.partition.idle:
        desk.turn()
    began, busy = time.perf_counter(), time.process_time()
    desk.give("bounce", campaign="spring", quiet=True)
    desk.turn()
    other = desk.put()
    desk.turn()
    desk.turn()
    assert [work.unit.unit_id for work in desk.dispatches] == [other], "mail of others goes between"
    most = turns = 0
    while len(desk.partition.ledger.units) > 1:
        before = len(desk.written)
        desk.turn()
        turns += 1
        most = max(most, len(desk.written) - before)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    assert most <= MOST_RECORDS + SLICE_UNITS + PUMP_UNITS
    assert Counter(event.kind for event in desk.events)["cancelled"] == count
    assert len(desk.dispatches) == 1
    with capsys.disabled():
        print(
            f" [{count} units ended in {seconds:.1f} s, {busy / count * 1e6:.0f} µs of one core each, {turns} turns] ",
            end="",
        )
