"""The router's shell on the memory log: what is written when, end to end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import DnsTemporary, MxAnswer
from mailfleet_core.model import ids, wire
from mailfleet_core.model.site import partition_of
from support.fleet import delivered


async def test_a_mail_goes_from_put_to_done(fleet: Any) -> None:
    unit = await fleet.put()
    await fleet.until(lambda: fleet.tags(unit) == ["P", "A", "D"])
    await fleet.until(lambda: sorted(fleet.kinds(unit)) == ["accepted", "attempted", "delivered", "queued"])
    assert len(fleet.dispatches) == 1


async def test_a_refused_mail_is_reported_to_its_sender_before_it_is_forgotten(fleet: Any) -> None:
    fleet.answer = lambda work: delivered(work, wire.BOUNCED, 550, "no such user") if work.unit.envelope.reverse_path \
        else delivered(work)  # fmt: skip
    unit = await fleet.put()
    await fleet.until(lambda: fleet.tags(unit)[-1:] == ["D"] and len(fleet.dispatches) == 2)
    report = fleet.dispatches[1].unit
    assert report.envelope.reverse_path == ""
    assert report.recipients[0].address == "s@example.net"
    assert [event.kind for event in fleet.events(unit)].count("bounced") == 1


async def test_a_report_that_cannot_be_delivered_is_not_reported(fleet: Any) -> None:
    fleet.answer = lambda work: delivered(work, wire.BOUNCED, 550, "no")
    unit = await fleet.put(reverse_path="")
    await fleet.until(lambda: "bounced" in fleet.kinds(unit) and fleet.tags(unit)[-1:] == ["D"])
    assert len(fleet.dispatches) == 1


async def test_a_deferred_mail_waits_and_says_until_when(fleet: Any) -> None:
    fleet.answer = lambda work: delivered(work, wire.DEFERRED, 451, "later")
    unit = await fleet.put()
    await fleet.until(lambda: "deferred" in fleet.kinds(unit) and fleet.tags(unit)[-1:] == ["R"])
    event = next(event for event in fleet.events(unit) if event.kind == "deferred")
    assert 60 <= event.until - event.at <= 73


@pytest.mark.parametrize(("kind", "status"), [("null", "5.1.10"), ("missing", "5.1.2")])
async def test_a_domain_that_takes_no_mail_bounces_without_an_attempt(fleet: Any, kind: str, status: str) -> None:
    fleet.dns.answers["example.org"] = MxAnswer(kind)
    unit = await fleet.put(reverse_path="")
    await fleet.until(lambda: "bounced" in fleet.kinds(unit))
    (event,) = [event for event in fleet.events(unit) if event.kind == "bounced"]
    assert event.enhanced == status
    assert not fleet.dispatches


async def test_a_dns_failure_defers_and_never_bounces(fleet: Any) -> None:
    fleet.dns.answers["example.org"] = DnsTemporary("SERVFAIL")
    unit = await fleet.put()
    await fleet.until(lambda: "deferred" in fleet.kinds(unit))
    (event,) = [event for event in fleet.events(unit) if event.kind == "deferred"]
    assert event.phase == "dns"
    assert not fleet.dispatches


async def test_a_slow_name_holds_up_no_other_domain(fleet: Any) -> None:
    slow = asyncio.Event()
    quick = fleet.dns.mx

    async def mx(domain: str) -> MxAnswer:
        if domain == "slow.example":
            await slow.wait()
        return await quick(domain)

    fleet.dns.mx = mx
    held = await fleet.put("a@slow.example")
    unit = await fleet.put("a@quick.example")
    await fleet.until(lambda: "delivered" in fleet.kinds(unit))
    assert "delivered" not in fleet.kinds(held)
    slow.set()
    await fleet.until(lambda: "delivered" in fleet.kinds(held))


async def test_a_learned_site_is_taught_to_ingest(fleet: Any) -> None:
    await fleet.put("a@taught.example", site="taught.example")
    await fleet.until(
        lambda: any(r.key == b"site|taught.example" and r.value == b"mx.taught.example"
                    for r in fleet.memory.records(topics.CONTROL, 0))
    )  # fmt: skip


async def test_a_suspended_site_holds_its_mail_until_it_is_resumed(fleet: Any) -> None:
    hold = wire.encode(wire.Suspension("maintenance", "postmaster", 0.0))
    key = b"suspend|site|mx.example.org"
    await fleet.bus.append(topics.CONTROL, 0, key, hold, topics.tag(topics.PUT))
    await asyncio.sleep(0.01)
    unit = await fleet.put()
    await fleet.until(lambda: "held" in fleet.kinds(unit))
    assert not fleet.dispatches
    await fleet.bus.append(topics.CONTROL, 0, key, None, topics.tag(topics.DONE))
    await fleet.until(lambda: "delivered" in fleet.kinds(unit))
    assert fleet.kinds(unit).count("held") == 1


async def test_a_message_for_several_sites_is_split_once_however_often_it_is_read(fleet: Any) -> None:
    message = ids.message_id(1_800_000_000.0, bytes(10))
    envelope = wire.Envelope(message, "s@example.net", "acme", "bulk", "default", wire.BodyRef(0, (8,), 1), 2e9, 2.1e9)
    recipients = tuple(wire.Recipient(n, f"u@d{n}.example") for n in range(3))
    value = wire.encode(wire.Accepted(envelope, recipients, tuple(f"d{n}.example" for n in range(3))))
    for _ in range(2):
        await fleet.bus.append(topics.ACCEPT, 0, message, value)
    await fleet.until(lambda: sum(event.kind == "delivered" for event in fleet.events()) == 3)
    await asyncio.sleep(0.05)
    assert len(fleet.dispatches) == 3


async def test_a_lost_attempt_is_told_and_tried_again_at_once(fleet: Any) -> None:
    def answer(work: wire.Dispatch) -> wire.Result:
        if work.attempt > 1:
            return delivered(work)
        return wire.Result(work.unit.unit_id, work.unit.hop, work.attempt, wire.LOST, work.source, 1.0, 1.0)

    fleet.answer = answer
    unit = await fleet.put()
    await fleet.until(lambda: "delivered" in fleet.kinds(unit))
    assert fleet.kinds(unit).count("in_doubt") == 1
    assert "deferred" not in fleet.kinds(unit)


async def test_a_source_that_cannot_get_out_costs_the_mail_no_rung_and_nobody_a_report(fleet: Any) -> None:
    def answer(work: wire.Dispatch) -> wire.Result:
        if work.attempt > 1:
            return delivered(work)
        now = SystemClock.now()
        outcome = wire.RecipientOutcome(0, wire.DEFERRED, 0, "4.3.5", "the address is not on this machine", "egress")
        identity = (work.unit.unit_id, work.unit.hop, work.attempt)
        return wire.Result(*identity, wire.NOT_ATTEMPTED, work.source, now, now, (outcome,))

    fleet.answer = answer
    unit = await fleet.put(stream="otp")
    async with asyncio.timeout(15):
        while "delivered" not in fleet.kinds(unit):
            await asyncio.sleep(0.05)
    assert not {"deferred", "bounced", "in_doubt"} & set(fleet.kinds(unit))
    (held,) = [event for event in fleet.events(unit) if event.kind == "held"]
    assert held.by == "egress"
    assert "not on this machine" in held.text
    assert not [site for owner in fleet.router.owners.values() for site in owner.partition.shaper.learned.sites]


async def test_the_committed_position_never_passes_a_result_whose_effects_are_not_back(fleet: Any) -> None:
    unit = await fleet.put()
    await fleet.until(lambda: fleet.tags(unit)[-1:] == ["D"])
    home = partition_of("mx.example.org", 4)
    results = fleet.memory.records(topics.RESULT, home)
    for _ in range(100):
        if position := await fleet.bus.committed("routers", topics.RESULT, home):
            break
        await asyncio.sleep(0.01)
    assert position == results[-1].offset + 1


async def test_a_domain_of_another_site_takes_its_mail_there(fleet: Any) -> None:
    unit = await fleet.put(site="example.org")
    await fleet.until(lambda: "delivered" in fleet.kinds(unit))
    assert fleet.dispatches[0].unit.site == "mx.example.org"
    assert fleet.kinds(unit).count("delivered") == 1
