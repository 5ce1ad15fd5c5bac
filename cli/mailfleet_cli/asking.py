"""From what somebody names to a mail: its id, a recipient, its Message-ID → its story and its units that are still open."""

from __future__ import annotations

from collections.abc import Callable

from mailfleet_cli import reading
from mailfleet_cli.story import Question, stories
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record
from mailfleet_core.model import wire
from mailfleet_core.model.wire import Event


async def told(bus: Bus, asked: Question) -> dict[str, list[Event]]:
    """Message id → the events of the mails that are meant."""
    events = await _matching(bus, asked.may_be_in, asked.means)
    if not asked.message_id and events:
        mails = {event.message_id for event in events}
        events = await _matching(bus, lambda _: True, lambda event: event.message_id in mails)
    return stories(events, asked)


async def _matching(bus: Bus, worth_reading: Callable[[bytes], bool], means: Callable[[Event], bool]) -> list[Event]:
    found: list[Event] = []

    def take(record: Record) -> None:
        # Decoding is what costs; most records are about other mails.
        if record.value is not None and worth_reading(record.value):
            found.extend(filter(means, wire.told(record.value)))

    await reading.everything(bus, topics.EVENTS, take)
    return found
