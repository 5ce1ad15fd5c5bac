"""A sender whose sources come from the log: they change, drain, go and come back while mail is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from mailfleet_core.bus import topics
from mailfleet_core.model import wire
from mailfleet_core.model.wire import DRAINING, QUARANTINED, Source
from mailfleet_core.settings import SourceSettings
from mailfleet_sender.settings import SenderSettings
from mailfleet_sender.shell.service import Sender
from support.scripted_mx import ScriptedMx
from support.sending import Sending, route, settings, with_routes

ONE = Source("default", "default", address="127.0.0.11", ehlo_name="one.test", lanes=(0,))


class Office(Sending):
    """A sender that knows no source but those of the log."""

    async def say(self, source: Source | None, name: str = "default") -> None:
        value = None if source is None else wire.encode(source)
        await self.bus.append(topics.CONTROL, 0, b"source|" + name.encode(), value)

    def sender(self, changed: SenderSettings | None = None, name: str = "sender-1") -> tuple[Sender, object]:  # type: ignore[override]
        told = self.egress  # whose names `Sending` writes into dispatches
        self.egress = msgspec.structs.replace(told, sources=(), pools=(), from_log=True)
        try:
            return super().sender(changed, name)
        finally:
            self.egress = told

    def kinds(self) -> list[str]:
        return [result.kind for result in self.results()]


@asynccontextmanager
async def office(*sources: Source, **changes: object) -> AsyncIterator[Office]:
    it = Office()
    for source in sources:
        await it.say(source, source.name)
    async with it.running(settings(**changes)):
        yield it


async def eventually(condition: object, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def hosts(mx: ScriptedMx) -> list[str]:
    """From where each mail came."""
    return [mx.peers[mail.connection - 1][0] for mail in mx.mails]


async def test_a_dispatch_by_a_lane_that_is_not_its_sources_is_given_back() -> None:
    async with ScriptedMx() as mx, office(ONE) as it:
        await it.dispatch(await it.unit(), route(mx.port), lane=1)
        assert (await it.result()).kind == wire.NOT_ATTEMPTED
        await it.dispatch(await it.unit(), route(mx.port), lane=0)
        assert (await it.result(2)).kind == wire.SETTLED
    assert len(mx.mails) == 1


@pytest.mark.parametrize("state", [DRAINING, QUARANTINED, wire.RETIRED, "unheard-of"])
async def test_a_source_that_is_not_active_begins_nothing(state: str) -> None:
    async with ScriptedMx() as mx, office(msgspec.structs.replace(ONE, state=state)) as it:
        await it.dispatch(await it.unit(), route(mx.port))
        assert (await it.result()).kind == wire.NOT_ATTEMPTED
    assert not mx.mails


async def test_what_is_under_way_ends_and_what_waits_is_given_back_when_its_source_drains() -> None:
    async with ScriptedMx(delay=0.1) as mx, office(ONE) as it:
        for _ in range(5):
            await it.dispatch(await it.unit(), route(mx.port, max_connections=1))
        await eventually(lambda: any(line.startswith(b"MAIL") for line in mx.commands))
        await it.say(msgspec.structs.replace(ONE, state=DRAINING))
        await it.result(5)
        assert sorted(it.kinds()) == ["not_attempted"] * 4 + ["settled"]
        await it.say(ONE)
        await it.dispatch(await it.unit(), route(mx.port, max_connections=1))
        assert (await it.result(6)).kind == wire.SETTLED
    assert len(mx.mails) == 2


async def test_what_is_under_way_ends_when_its_source_is_removed() -> None:
    async with ScriptedMx(delay=0.1) as mx, office(ONE) as it:
        for _ in range(3):
            await it.dispatch(await it.unit(), route(mx.port, max_connections=1))
        await eventually(lambda: any(line.startswith(b"MAIL") for line in mx.commands))
        await it.say(None)
        await it.result(3)
        await it.dispatch(await it.unit(), route(mx.port))
        await it.result(4)
    assert sorted(it.kinds()) == ["not_attempted"] * 3 + ["settled"]
    assert len(mx.mails) == 1


async def test_mail_leaves_from_the_new_address_and_name_after_a_change_and_none_is_sent_twice() -> None:
    other = msgspec.structs.replace(ONE, address="127.0.0.12", ehlo_name="two.test")
    async with ScriptedMx(delay=0.02) as mx, office(ONE) as it:
        for _ in range(6):
            await it.dispatch(await it.unit(), route(mx.port, max_connections=2))
        await mx.mail(2)
        before = len(mx.mails)
        await it.say(other)
        await it.result(6)
        await it.dispatch(await it.unit(), route(mx.port, max_connections=2))
        await it.result(7)
    assert it.kinds() == ["settled"] * 7
    assert len(mx.mails) == 7
    assert set(hosts(mx)[:before]) == {"127.0.0.11"}
    # Two may have been under way.
    assert set(hosts(mx)[before + 2 :]) == {"127.0.0.12"}
    assert b"EHLO two.test" in mx.commands


async def test_a_weight_or_a_reason_that_changes_leaves_connections_alone() -> None:
    async with ScriptedMx() as mx, office(ONE) as it:
        await it.dispatch(await it.unit(), route(mx.port))
        await it.result()
        await it.say(msgspec.structs.replace(ONE, weight=7, reason="good work", at=5.0))
        await it.dispatch(await it.unit(), route(mx.port))
        await it.result(2)
    assert mx.connections == 1


async def test_a_source_with_more_lanes_has_a_smaller_part_of_its_limits_on_each() -> None:
    quick = route(0, messages_per_second=20.0, max_connections=4)
    async with ScriptedMx() as mx, office(ONE) as it:
        way = msgspec.structs.replace(quick, port=mx.port)
        await it.dispatch(await it.unit(), way)
        await it.result()
        await it.say(msgspec.structs.replace(ONE, lanes=(0, 1, 2, 3)))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        for _ in range(6):
            await it.dispatch(await it.unit(), way)
        await it.result(7)
        assert time.monotonic() - began >= 4 / (20.0 / 4)


async def test_a_sender_takes_the_lanes_that_it_is_told_and_no_others() -> None:
    lanes = tuple(range(4))
    async with ScriptedMx() as mx, office(msgspec.structs.replace(ONE, lanes=lanes), lanes=(1, 2)) as it:
        for lane in lanes:
            await it.dispatch(await it.unit(), route(mx.port), lane=lane)
        await it.result(2)
        await asyncio.sleep(0.3)
        assert len(it.results()) == 2
        assert len(mx.mails) == 2


async def test_the_sources_of_the_settings_do_not_change_by_what_the_log_says() -> None:
    it = Sending(egress=with_routes(sources=(SourceSettings(name="default"),)))
    await it.bus.append(topics.CONTROL, 0, b"source|default", None)
    await it.bus.append(topics.CONTROL, 0, b"source|default", wire.encode(msgspec.structs.replace(ONE, state=DRAINING)))
    async with ScriptedMx() as mx, it.running():
        await it.dispatch(await it.unit(), route(mx.port))
        assert (await it.result()).kind == wire.SETTLED
