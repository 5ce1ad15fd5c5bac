"""Waiting for the end of a mail that is handed in just now: only what comes into `mail.events` after it is read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from mailfleet_cli import output, reading
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus
from mailfleet_core.model import wire
from mailfleet_core.model.wire import TERMINAL_KINDS, Event
from mailfleet_core.settings import SettingsFile

MESSAGE_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")


async def of(
    file: SettingsFile, hand_in: Callable[[], str], recipients: int, seconds: float
) -> tuple[str, list[Event]]:
    """The reply to the mail that `hand_in` submits, and the events that ended all its recipients. Stops when they do not."""
    async with reading.opened(file) as bus:
        numbers = range(bus.partitions(topics.EVENTS))
        starts = [await bus.end(topics.EVENTS, number) for number in numbers]
        reply = await asyncio.to_thread(hand_in)
        message_id = MESSAGE_ID.search(reply)
        if message_id is None:
            output.fail(f"the reply has no message id to wait for: {reply}")
        found: asyncio.Queue[Event] = asyncio.Queue()
        tails = [asyncio.create_task(_follow(bus, number, starts[number], message_id[0], found)) for number in numbers]
        try:
            async with asyncio.timeout(seconds):
                return reply, await _ends(found, recipients)
        except TimeoutError:
            output.fail(
                f"{message_id[0]} has no end after {seconds:g} s; `mailfleet why {message_id[0]}` says what holds it"
            )
        finally:
            for tail in tails:
                tail.cancel()
            await asyncio.gather(*tails, return_exceptions=True)


async def _follow(bus: Bus, number: int, start: int, message_id: str, found: asyncio.Queue[Event]) -> None:
    async for batch in bus.tail(topics.EVENTS, number, start):
        for record in batch:
            for event in wire.told(record.value) if record.value is not None else ():
                if event.message_id == message_id and event.kind in TERMINAL_KINDS:
                    found.put_nowait(event)


async def _ends(found: asyncio.Queue[Event], recipients: int) -> list[Event]:
    ended: dict[int, Event] = {}
    while len(ended) < recipients:
        event = await found.get()
        ended |= {index: event for index, _ in event.recipients}
    return list({event.id: event for event in ended.values()}.values())
