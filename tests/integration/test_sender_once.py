"""Never twice and never unanswered: repetitions, zombies, restarts, planned and unplanned changes of owner."""

from __future__ import annotations

import asyncio

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.model import wire
from support.scripted_mx import HANG, ScriptedMx
from support.sending import Sending, route, settings


def kinds(sending: Sending) -> list[str]:
    return [result.kind for result in sending.results()]


async def eventually(condition: object, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_a_repeated_dispatch_is_answered_again_and_not_delivered_again() -> None:
    sending = Sending()
    async with ScriptedMx() as mx, sending.running():
        unit = await sending.unit()
        await sending.dispatch(unit, route(mx.port))
        first = await sending.result()
        await sending.dispatch(unit, route(mx.port), epoch=2, again=True)
        assert await sending.result(2) == first
        await sending.dispatch(unit, route(mx.port), epoch=3)
        assert await sending.result(3) == first
    assert len(mx.mails) == 1


async def test_a_dispatch_repeated_while_it_is_under_way_has_one_result() -> None:
    sending = Sending()
    async with ScriptedMx(delay=0.05) as mx, sending.running():
        unit = await sending.unit()
        for epoch in (1, 2, 3):
            await sending.dispatch(unit, route(mx.port), epoch=epoch, again=epoch > 1)
        await sending.result()
        await asyncio.sleep(0.2)
    assert kinds(sending) == ["settled"]
    assert len(mx.mails) == 1


async def test_a_dispatch_said_again_that_nobody_has_in_hand_is_given_back() -> None:
    sending = Sending()
    async with ScriptedMx() as mx, sending.running():
        await sending.dispatch(await sending.unit(), route(mx.port), again=True)
        await sending.result()
    assert kinds(sending) == ["not_attempted"]
    assert not mx.mails


async def test_a_zombies_dispatch_is_dropped() -> None:
    sending = Sending()
    async with ScriptedMx() as mx, sending.running():
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=7)
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=6)
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=7)
        await sending.result(2)
    assert len(mx.mails) == 2


async def test_an_epoch_published_before_the_start_is_known() -> None:
    sending = Sending()
    await sending.bus.append(topics.CONTROL, 0, b"epoch|0", (9).to_bytes(8, "big"))
    async with ScriptedMx() as mx, sending.running():
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=8)
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=9)
        await sending.result()
    assert len(mx.mails) == 1


async def test_what_a_dead_sender_had_is_called_lost_and_what_came_later_is_done() -> None:
    sending = Sending()
    async with ScriptedMx(replies={"DOT": [HANG, b"250 ok"]}) as mx:
        dead, bus = sending.sender(name="dead")
        await bus.start()
        await dead.start()
        lost = await sending.dispatch(await sending.unit(), route(mx.port))
        await eventually(lambda: mx.bodies_read == 1)
        bus.kill()
        async with sending.running():
            await sending.result()
            await sending.dispatch(await sending.unit(), route(mx.port))
            await sending.result(2)
    assert kinds(sending) == ["lost", "settled"]
    assert sending.results()[0].unit_id == lost.unit.unit_id


async def test_what_a_dead_sender_had_is_in_doubt_although_its_router_is_gone_too() -> None:
    sending = Sending()
    async with ScriptedMx(replies={"DOT": [HANG, b"250 ok"]}) as mx:
        dead, bus = sending.sender(name="dead")
        await bus.start()
        await dead.start()
        await sending.dispatch(await sending.unit(), route(mx.port), epoch=3)
        await eventually(lambda: mx.bodies_read == 1)
        bus.kill()
        await sending.bus.append(topics.CONTROL, 0, b"epoch|0", (9).to_bytes(8, "big"))
        async with sending.running():
            await sending.result()
    assert kinds(sending) == ["lost"]


async def test_a_result_that_is_durable_is_never_called_lost() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        dead, bus = sending.sender(name="dead")
        await bus.start()
        await dead.start()
        for _ in range(5):
            await sending.dispatch(await sending.unit(), route(mx.port))
        await sending.result(5)
        await asyncio.sleep(0.3)  # the position is committed every 0.2 s
        bus.kill()
        async with sending.running():
            await asyncio.sleep(0.1)
            await sending.dispatch(await sending.unit(), route(mx.port))
            await sending.result(6)
    assert kinds(sending) == ["settled"] * 6


async def test_dispatches_to_a_lane_that_never_had_an_owner_are_not_in_doubt() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        await sending.dispatch(await sending.unit(), route(mx.port))
        async with sending.running():
            await sending.result()
    assert kinds(sending) == ["settled"]


async def test_what_comes_between_a_planned_leave_and_the_next_owner_is_not_in_doubt() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        for _ in range(3):
            async with sending.running():
                await sending.dispatch(await sending.unit(), route(mx.port))
                await sending.result(sending.count)
            await sending.dispatch(await sending.unit(), route(mx.port))
    assert set(kinds(sending)) == {"settled"}
    assert len(mx.mails) == len(sending.results())


async def test_a_crash_after_a_planned_leave_puts_in_doubt_again() -> None:
    sending = Sending()
    async with ScriptedMx(replies={"DOT": HANG}) as mx:
        async with sending.running():
            pass
        dead, bus = sending.sender(name="dead")
        await bus.start()
        await dead.start()
        await sending.dispatch(await sending.unit(), route(mx.port))
        await eventually(lambda: mx.bodies_read == 1)
        bus.kill()
        async with sending.running():
            await sending.result()
    assert kinds(sending) == ["lost"]


async def test_a_drain_finishes_what_is_under_way_and_gives_back_the_rest() -> None:
    sending = Sending()
    async with ScriptedMx(delay=0.1) as mx:
        way = route(mx.port, max_connections=2)
        sender, bus = sending.sender(settings(dot_seconds=5.0, drain_seconds=5.0))
        await bus.start()
        await sender.start()
        for _ in range(20):
            await sending.dispatch(await sending.unit(), way)
        await eventually(lambda: len(mx.mails) >= 3)
        await sender.drain()
        await bus.close()
    assert len(sending.results()) == 20
    assert kinds(sending).count("settled") == len(mx.mails)
    assert set(kinds(sending)) == {"settled", "not_attempted"}
    assert {o.verdict for result in sending.results() for o in result.outcomes} == {"delivered"}
    end = sending.log.records(topics.DISPATCH, 0)[-1].offset
    assert await sending.bus.committed("senders", topics.DISPATCH, 0) >= end - 200
    async with sending.running():
        await asyncio.sleep(0.1)
    assert len(sending.results()) == 20


async def test_a_drain_ends_although_a_site_hangs_and_says_what_is_in_doubt() -> None:
    sending = Sending()
    quick = settings(dot_seconds=60.0, mail_seconds=60.0, drain_seconds=0.3)
    async with ScriptedMx(replies={"DOT": HANG}) as dot, ScriptedMx(replies={"MAIL": HANG}) as mail:
        sender, bus = sending.sender(quick)
        await bus.start()
        await sender.start()
        in_doubt = await sending.dispatch(await sending.unit(site="dot"), route(dot.port))
        untouched = await sending.dispatch(await sending.unit(site="mail"), route(mail.port))
        await eventually(lambda: dot.bodies_read == 1 and len(mail.commands) == 2)
        await sender.drain()
    told = {result.unit_id: result.kind for result in sending.results()}
    assert told == {in_doubt.unit.unit_id: "lost", untouched.unit.unit_id: "not_attempted"}


async def test_a_result_is_written_again_until_the_log_takes_it() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        sender, bus = sending.sender()
        await bus.start()
        await sender.start()
        await asyncio.sleep(0.05)
        bus.failing = BusUnavailable("away")
        await sending.dispatch(await sending.unit(), route(mx.port))
        await mx.mail()
        await asyncio.sleep(0.3)
        committed = await sending.bus.committed("senders", topics.DISPATCH, 0)
        assert committed <= sending.log.records(topics.DISPATCH, 0)[-1].offset
        bus.failing = None
        await sending.result()
        await sender.drain()
    assert kinds(sending) == ["settled"]
    assert len(mx.mails) == 1


async def test_a_sender_that_the_group_has_long_not_answered_begins_nothing() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        sender, bus = sending.sender(settings())
        await bus.start()
        await sender.start()
        await sending.dispatch(await sending.unit(), route(mx.port))
        await sending.result()
        bus.doubt()
        await sending.dispatch(await sending.unit(), route(mx.port))
        await sending.dispatch(await sending.unit(site="other.test"), route(mx.port))
        await asyncio.sleep(0.3)
        assert (len(mx.mails), mx.connections) == (1, 1)
        bus.doubt(False)
        await sending.result(3)
        assert len(mx.mails) == 3
        await sender.drain()
        await bus.close()


async def test_a_sender_taken_for_dead_begins_nothing_more_when_it_reads_of_its_successor() -> None:
    sending = Sending()
    async with ScriptedMx(delay=0.02) as mx:
        way = route(mx.port, max_connections=1)
        zombie, bus = sending.sender(settings(), name="zombie")
        await bus.start()
        await zombie.start()
        await asyncio.sleep(0.05)
        for _ in range(10):
            await sending.dispatch(await sending.unit(), way)
        await eventually(lambda: len(mx.mails) >= 1)
        bus.evict()
        async with sending.running():
            await eventually(lambda: len({result.unit_id for result in sending.results()}) == 10)
            late = await sending.dispatch(await sending.unit(), way)
            await eventually(lambda: late.unit.unit_id in {result.unit_id for result in sending.results()})
            of_late = [result for result in sending.results() if result.unit_id == late.unit.unit_id]
        assert [result.kind for result in of_late] == ["settled"]
        await zombie.drain()
    lost = {result.unit_id for result in sending.results() if result.kind == wire.LOST}
    settled = {result.unit_id for result in sending.results() if result.kind == wire.SETTLED}
    assert len(settled - {late.unit.unit_id}) <= 3
    assert lost | settled >= {result.unit_id for result in sending.results()}
