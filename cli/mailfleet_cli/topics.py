"""`mailfleet topics`: the topics of the log, made where they are missing and checked, before any service starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click
from rich.table import Table

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_core.bus import topics as known
from mailfleet_core.bus.opening import QUEUE_LIFE_SECONDS
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.settings import BusSettings, SettingsFile

PAUSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Made:
    """A topic as it is."""

    name: str
    partitions: int
    kept: str


@click.command()
@click.option("--wait", "wait_seconds", type=float, default=0.0, metavar="SECONDS",
              help="How long to wait for a log that does not answer yet.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def topics(invocation: Invocation, wait_seconds: float, as_json: bool) -> None:
    """Make the topics that are missing, check the others, and list all of them.

    Every service does the same when it starts; done before, what is wrong is told in one place. Exit code 1 when a topic
    may lose acknowledged mail or has another number of partitions than the settings ask for.
    """
    made = reading.run(_made(invocation.file(), wait_seconds))
    if as_json:
        for each in made:
            output.json(each)
        return
    table = Table("topic", "partitions", "keeps", box=None, header_style="bold")
    for each in made:
        table.add_row(each.name, str(each.partitions), each.kept)
    output.out.print(table)


async def _made(file: SettingsFile, wait_seconds: float) -> list[Made]:
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            return await _look(file)
        except BusUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            output.err.print(f"not yet: {output.clean(str(error))}")
            await asyncio.sleep(PAUSE_SECONDS)


async def _look(file: SettingsFile) -> list[Made]:
    settings = file.section("bus", BusSettings)
    wanted = known.topics(settings.queue_partitions, settings.lanes, QUEUE_LIFE_SECONDS)
    async with reading.opened(file) as bus:
        return [
            Made(settings.topic_prefix + name, bus.partitions(name), _kept(topic)) for name, topic in wanted.items()
        ]


def _kept(topic: known.Topic) -> str:
    return "the last record of a key" if topic.compacted else output.span(topic.retention_seconds)
