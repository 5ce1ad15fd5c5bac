"""`mailfleet sources` and `mailfleet source`: egress sources, and, where they come from the log, how they are written there."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Coroutine
from typing import Any

import click
import msgspec
from rich.table import Table as Rows

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_core import settings
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import stats, wire
from mailfleet_core.model.fleet import Fleet
from mailfleet_core.model.sources import SOURCE_KEY, Table
from mailfleet_core.model.wire import ACTIVE, DRAINING, QUARANTINED, Source
from mailfleet_core.settings import BusSettings, SettingsFile

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
FIELDS = ("pool", "weight", "address", "address6", "ehlo_name", "lanes", "proxy", "warmup", "state")
"""What `set` changes of a source, as the options are called."""


class Lanes(click.ParamType[tuple[int, ...]]):
    """`3` or `3,4`."""

    name = "3,4"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers. Raises click.BadParameter."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(number) for number in str(value).split(",") if number.strip())
        except ValueError:
            self.fail(f"{value!r} are no numbers of lanes; write 3 or 3,4", param, ctx)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def sources(invocation: Invocation, as_json: bool) -> None:
    """Show the egress sources: their pools, lanes and states."""
    table = table_of(invocation.file())
    if as_json:
        for source in _sorted(table):
            output.json({**msgspec.structs.asdict(source), "lanes": table.lanes(source.name)})
        return
    rows = Rows("source", "pool", "weight", "address", "EHLO name", "lanes", "state", "warm-up", "since", "reason",
                box=None, header_style="bold")  # fmt: skip
    for source in _sorted(table):
        rows.add_row(*map(output.clean, _row(source, table.lanes(source.name))))
    output.out.print(rows if table.sources else "There are no sources: `mailfleet source set NAME` makes one.")
    for name, overflow in table.overflow().items():
        output.out.print(output.clean(f"What the warm-up of pool {name} does not allow goes by pool {overflow}."))
    for mistake in table.mistakes():
        output.err.print(f"[yellow]warning:[/] {output.clean(mistake)}")


def table_of(file: SettingsFile) -> Table:
    """The sources there are: those of the settings or those of the log. Raises BusUnavailable."""
    egress = settings.egress(file)
    if not egress.from_log:
        return egress.table(file.section("bus", BusSettings).lanes)
    return reading.run(_with_bus(file, _read))


@click.group()
def source() -> None:
    """Write egress sources into the log; routers and senders obey at once."""


def saying(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say why and who."""
    for option in (
        click.option("--author", default=getpass.getuser, help="Who says so.  [default: the user]"),
        click.option("--reason", default="", help="Why; shown in `sources` and `why`."),
    ):
        function = option(function)
    return function


@source.command("set")
@click.argument("name")
@click.option("--pool", help="Its egress pool.  [default of a new one: default]")
@click.option(
    "--weight", type=click.IntRange(0), help="Its share of the pool's mail; 0: none.  [default of a new one: 1]"
)
@click.option("--address", help="IPv4 address to send from.")
@click.option("--address6", help="IPv6 address to send from.")
@click.option("--ehlo-name", help="Name in EHLO: the PTR of the address.")
@click.option("--lanes", type=Lanes(), help="Its lanes of dispatch.  [default of a new one: the first that is free]")
@click.option("--proxy", help="socks5://host:port of the proxy that its connections go through.")
@click.option("--warmup", help="Name of the warm-up plan that it begins now; empty: none.")
@click.option("--state", type=click.Choice([ACTIVE, DRAINING, QUARANTINED]), help="[default of a new one: active]")
@saying
@click.pass_obj
def set_(invocation: Invocation, /, name: str, reason: str, author: str, **options: Any) -> None:
    """Make a source, or change what is given of one."""
    given = {field: options[field] for field in FIELDS if options[field] is not None}

    async def change(bus: Bus) -> Source:
        return await _write(bus, await _read(bus), name, given, (reason, author))

    _say(reading.run(_with_bus(_file(invocation), change)))


@source.command()
@click.argument("name")
@saying
@click.pass_obj
def drain(invocation: Invocation, /, name: str, reason: str, author: str) -> None:
    """Let a source take no new mail; what is being delivered ends, what waits goes by the others of its pool."""

    async def change(bus: Bus) -> Source:
        table = await _read(bus)
        _there(table, name)
        return await _write(bus, table, name, {"state": DRAINING}, (reason, author))

    _say(reading.run(_with_bus(_file(invocation), change)))


@source.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="Also while it takes mail, or senders have some of it in hand.")
@click.pass_obj
def remove(invocation: Invocation, name: str, now: bool) -> None:
    """Take a source away that has drained. No mail is lost: senders give back what they have not begun."""

    async def change(bus: Bus) -> None:
        table = await _read(bus)
        _there(table, name)
        if not now:
            await _refuse_busy(bus, table.sources[name])
        await bus.append(topics.CONTROL, 0, SOURCE_KEY + name.encode(), None, topics.tag(topics.DONE))

    reading.run(_with_bus(_file(invocation), change))
    output.out.print(f"source {output.clean(name)} is removed.")


def _file(invocation: Invocation) -> SettingsFile:
    file = invocation.file()
    if not settings.egress(file).from_log:
        output.fail(f"the sources come from {file.origin}: change them there, or set [egress] sources = 'control'")
    return file


async def _with_bus(file: SettingsFile, work: Callable[[Bus], Coroutine[Any, Any, reading.T]]) -> reading.T:
    async with reading.opened(file) as bus:
        return await work(bus)


async def _read(bus: Bus) -> Table:
    table = Table(bus.partitions(topics.DISPATCH))
    for key, value in (await reading.control(bus)).items():
        table.read(key, value)
    return table


async def _write(bus: Bus, table: Table, name: str, given: dict[str, Any], said: tuple[str, str]) -> Source:
    now = SystemClock.now()
    old = table.sources.get(name) or Source(name, "default", lanes=given.get("lanes") or _free_lane(table))
    changed = changed_source(old, given, *said, now)
    await bus.append(topics.CONTROL, 0, SOURCE_KEY + name.encode(), wire.encode(changed), topics.tag(topics.PUT))
    table.read(SOURCE_KEY + name.encode(), wire.encode(changed))
    for mistake in table.mistakes():
        output.err.print(f"[yellow]warning:[/] {output.clean(mistake)}")
    return changed


def changed_source(old: Source, given: dict[str, Any], reason: str, author: str, now: float) -> Source:
    """`old` with what is given; another warm-up plan begins now. A reason stays while the state does."""
    state = given.get("state", old.state)
    kept = old.reason if state == old.state else ""
    began = now if given.get("warmup", old.warmup) != old.warmup else old.started_at
    return msgspec.structs.replace(old, **given, reason=reason or kept, by=author, at=now, started_at=began)


def _free_lane(table: Table) -> tuple[int, ...]:
    taken = {lane for source in table.sources.values() for lane in source.lanes}
    free = next((lane for lane in range(table.count) if lane not in taken), None)
    if free is None:
        output.fail(f"all {table.count} lanes are some source's: raise [bus] lanes, or name one with --lanes")
    return (free,)


def _there(table: Table, name: str) -> None:
    if name not in table.sources:
        known = ", ".join(sorted(table.sources)) or "none"
        output.fail(f"there is no source {name!r} in the log; there are: {known}")


async def _refuse_busy(bus: Bus, known: Source) -> None:
    if known.state == ACTIVE:
        output.fail(f"source {known.name} takes mail: `mailfleet source drain {known.name}` first, or --now")
    fleet = Fleet()

    def take(record: Any) -> None:
        if record.value is not None:
            fleet.read(stats.decode(record.value))

    await reading.everything(bus, topics.STATS, take)
    in_flight = fleet.source(known.name).in_flight
    if in_flight:
        output.fail(f"senders have {in_flight} units of source {known.name} in hand; try again in a moment, or --now")


def _sorted(table: Table) -> list[Source]:
    return [each for _, each in sorted(table.sources.items())]


def _row(each: Source, lanes: tuple[int, ...]) -> tuple[str, ...]:
    address = " ".join(filter(None, (each.address, each.address6))) or "the system's"
    since = output.clock(each.at) if each.at else ""
    proxy = f" by {each.proxy}" if each.proxy else ""
    said = each.reason + (f" ({each.by})" if each.by and each.state != ACTIVE else "")
    return (
        each.name, each.pool, str(each.weight), address + proxy, each.ehlo_name or "the machine's",
        ",".join(map(str, lanes)) or "none", each.state, each.warmup, since, said,
    )  # fmt: skip


def _say(changed: Source) -> None:
    lanes = ",".join(map(str, changed.lanes))
    output.out.print(output.clean(f"source {changed.name} of pool {changed.pool} is {changed.state}, lanes {lanes}."))
