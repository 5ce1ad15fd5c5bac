"""`mailfleet suspend`, `resume`, `bounce`, `reroute`, `retry` and `commands`: what a postmaster tells the whole cluster."""

from __future__ import annotations

import getpass
import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import msgspec
from rich.table import Table

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_cli.sources import table_of
from mailfleet_core import settings
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import ids, wire
from mailfleet_core.settings import SettingsFile
from mailfleet_router.decisions.shaping import control
from mailfleet_router.decisions.shaping.control import BOUNCE, BY, REROUTE, RETRY, SUSPEND, Command
from mailfleet_router.decisions.shaping.values import PolicyError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
OLD_KINDS = ("site", "tenant")
KEPT_SECONDS = 86_400.0
"""A command that is over stays in the log for so long, for those who ask what was."""
WHAT = {
    "tenant": "On whose behalf.", "stream": "Class of mail.", "campaign": "The client's own label.",
    "domain": "Domain of the recipient.", "site": "Receiving site, as `queues` names it.", "pool": "Egress pool.",
    "message": "Id of one message.",
}  # fmt: skip
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class Given(NamedTuple):
    """What the options say."""

    about: dict[str, str]
    reason: str
    author: str
    at: float
    until: float


def seconds_of(text: str) -> float:
    """`90s`, `15m`, `2h`, `1d`, `1d12h`. Raises click.BadParameter."""
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise click.BadParameter(f"{text!r} is not a length of time; write 90s, 15m, 2h or 1d", param_hint="--for")
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))


def end_of(length: str | None, until: datetime | None, now: float) -> float:
    """When the command ends; 0: when somebody takes it back."""
    if length and until:
        raise click.UsageError("give --for or --until, not both")
    if until and until.timestamp() <= now:
        raise click.BadParameter("is in the past", param_hint="--until")
    return until.timestamp() if until else now + seconds_of(length) if length else 0.0


def about(source: bool = False) -> Decorator:
    """The options that name the mail."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        named = {**WHAT, "source": "Egress source: nothing goes from it."} if source else WHAT
        for name in reversed(named):
            function = click.option(f"--{name}", metavar="NAME", help=named[name])(function)
        return function

    return add


def telling(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that is given."""
    days = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"])
    for option in (
        click.option("--dry-run", is_flag=True, help="Only say how much mail it is about."),
        click.option("--author", default=getpass.getuser, help="Who says so.  [default: the user]"),
        click.option("--until", type=days, help="Until when."),
        click.option("--for", "length", metavar="90s|15m|2h|1d", help="How long."),
        click.option("--reason", required=True, help="Why; shown in `why`, `trace` and, of a bounce, to the sender."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("old", nargs=-1, metavar="[site|tenant NAME]")
@about(source=True)
@telling
@click.pass_obj
def suspend(invocation: Invocation, /, old: tuple[str, ...], **options: Any) -> None:
    """Hold mail back; what is in senders' hands goes on. A pause is not an attempt.

    `suspend site NAME` means the site, and the domain, of that name.
    """
    given = _given(options)
    if not old:
        _tell(invocation.file(), SUSPEND, given, options)
        return
    if len(old) != 2 or old[0] not in OLD_KINDS or given.about:
        raise click.UsageError(
            "write `suspend site NAME`, `suspend tenant NAME`, or options such as --tenant NAME --domain NAME"
        )
    value = wire.encode(wire.Suspension(given.reason, given.author, given.at, given.until))
    reading.run(_append(invocation.file(), key_of(*old), value))
    output.out.print(f"{old[0]} {output.clean(old[1])} is suspended {_end(given.until, f'resume {old[0]} {old[1]}')}.")


@click.command()
@about()
@telling
@click.option("--quiet", is_flag=True, help="Do not tell the senders.")
@click.pass_obj
def bounce(invocation: Invocation, /, **options: Any) -> None:
    """End all mail that is meant and was accepted until now; its senders are told. What a sender has in hand ends only
    if it comes back undelivered."""
    _tell(invocation.file(), BOUNCE, _given(options), options)


@click.command()
@about()
@telling
@click.option("--to", metavar="POOL", required=True, help="The egress pool whose sources send it instead.")
@click.pass_obj
def reroute(invocation: Invocation, /, **options: Any) -> None:
    """Send mail by the sources of another egress pool."""
    _tell(invocation.file(), REROUTE, _given(options), options)


@click.command()
@about()
@telling
@click.pass_obj
def retry(invocation: Invocation, /, **options: Any) -> None:
    """Try deferred mail now instead of when it is due; its retry times go on as they were."""
    _tell(invocation.file(), RETRY, _given(options), options)


@click.command()
@click.argument("which", nargs=-1, metavar="[ID | site NAME | tenant NAME]")
@about(source=True)
@click.pass_obj
def resume(invocation: Invocation, /, which: tuple[str, ...], **options: str | None) -> None:
    """Take a command back: by its id (see `commands`), or by the very names that it was given."""
    names = {name: _name(name, value) for name, value in options.items() if value}
    if bool(which) == bool(names) or len(which) > 2:
        raise click.UsageError("write `resume ID`, `resume site NAME`, or the options that the command was given")
    for said in reading.run(_take_back(invocation.file(), which, names)):
        output.out.print(f"{output.clean(said.what)} goes on; {said.action} {output.clean(said.id)} is taken back.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def commands(invocation: Invocation, as_json: bool) -> None:
    """Show the commands that are in force."""
    standing = list(reading.run(_standing(invocation.file())).values())
    if as_json:
        for said in standing:
            output.json({**msgspec.structs.asdict(said), "about": dict(said.about)})
    elif not standing:
        output.out.print("No command is in force.")
    else:
        table = Table("id", "action", "mail of", "until", "by", "since", "reason", box=None, header_style="bold")
        for said in standing:
            action = f"{said.action} to {said.pool}" if said.pool else said.action
            until = output.clock(said.until) if said.until else "taken back"
            since = output.clock(said.at)
            table.add_row(*map(output.clean, (said.id, action, said.what, until, said.author, since, said.reason)))
        output.out.print(table)


def key_of(kind: str, name: str) -> bytes:
    """The key in `mail.control` of `suspend site NAME` and `suspend tenant NAME`."""
    return f"suspend|{kind}|{name.lower() if kind == 'site' else name}".encode()


def standing(records: dict[bytes, bytes], now: float) -> dict[bytes, Command]:
    """The commands in force, by key, of what `mail.control` holds."""
    found: dict[bytes, Command] = {}
    for key, value in records.items():
        kind, _, rest = key.decode(errors="replace").partition("|")
        if kind == "command":
            found[key] = control.decode(value)
        elif kind == "suspend":
            what, _, name = rest.partition("|")
            said = wire.decode(wire.Suspension, value)
            found[key] = Command(
                f"{what} {name}", SUSPEND, ((what, name),), said.reason, said.author, said.at, said.until
            )  # fmt: skip
    return {key: said for key, said in sorted(found.items(), key=lambda item: item[1].at) if not 0 < said.until <= now}


def _given(options: dict[str, Any]) -> Given:
    now = SystemClock.now()
    names = {name: _name(name, options[name]) for name in BY if options.get(name)}
    return Given(names, options["reason"], options["author"], now, end_of(options["length"], options["until"], now))


def _name(field: str, value: str) -> str:
    if field != "message":
        return value
    try:
        return ids.text(ids.parse(value)[: ids.MESSAGE_ID_BYTES])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--message") from error


def _tell(file: SettingsFile, action: str, given: Given, options: dict[str, Any]) -> None:
    pool, identifier = options.get("to") or "", secrets.token_hex(4)
    _known(file, given.about.get("source", ""), pool)
    try:
        said = control.command(
            identifier, action, given.about, given.reason, given.author, given.at, given.until, pool
        )  # fmt: skip
    except PolicyError as error:
        raise click.UsageError(str(error)) from error
    said = msgspec.structs.replace(said, quiet=bool(options.get("quiet")))
    counted = reading.run(_give(file, said, options["dry_run"]))
    if options["dry_run"]:
        output.out.print(f"{action} of {output.clean(said.what)}: {counted}. Nothing was done.")
    else:
        end = _end(said.until, f"resume {said.id}")
        output.out.print(f"{action} of {output.clean(said.what)} is in force {end}: {counted}.")


def _known(file: SettingsFile, source: str, pool: str) -> None:
    egress = settings.egress(file)
    where, pools = "the settings", [each.name for each in egress.pools]
    names = [each.name for each in egress.sources]
    if egress.from_log and (source or pool):
        table = table_of(file)
        where, pools, names = "the log", list(table.pools()), list(table.sources)
    for what, name, known in (("source", source, names), ("pool", pool, pools)):
        if name and name not in known:
            output.fail(f"there is no {what} {name!r} in {where}; there are {', '.join(sorted(known))}")


def _end(until: float, back: str) -> str:
    return f"until {output.clock(until)}" if until else f"until `mailfleet {output.clean(back)}`"


async def _give(file: SettingsFile, said: Command, dry_run: bool) -> str:
    async with reading.opened(file) as bus:
        records = await reading.control(bus)
        # Counted before it is given: what a bounce ends is gone a moment later.
        counted = await _count(records, said)
        if not dry_run:
            await _forget(bus, records)
            await _write(bus, f"command|{said.id}".encode(), wire.encode(said))
        return counted


async def _count(records: dict[bytes, bytes], said: Command) -> str:
    if any(name == "source" for name, _ in said.about):
        return "what would go from that source"
    answers = await reading.ask(reading.members(records, "router"), "/api/concerned?" + urlencode(said.about))
    if not answers:
        return "no router answers, so nobody knows how much mail it is about"
    waiting, in_flight = (sum(answer[key] for answer in answers) for key in ("waiting", "in_flight"))
    return f"{waiting} units wait, {in_flight} are in senders' hands"


async def _forget(bus: Bus, records: dict[bytes, bytes]) -> None:
    """What was over yesterday need not be read by every router that starts."""
    now = SystemClock.now()
    old = [key for key in records if key.startswith(b"command|") and key not in standing(records, now - KEPT_SECONDS)]
    for key in old:
        await _write(bus, key, None)


async def _append(file: SettingsFile, key: bytes, value: bytes) -> None:
    async with reading.opened(file) as bus:
        await _write(bus, key, value)


async def _write(bus: Bus, key: bytes, value: bytes | None) -> None:
    await bus.append(topics.CONTROL, 0, key, value, topics.tag(topics.PUT if value is not None else topics.DONE))


async def _standing(file: SettingsFile) -> dict[bytes, Command]:
    async with reading.opened(file) as bus:
        return standing(await reading.control(bus), SystemClock.now())


async def _take_back(file: SettingsFile, which: tuple[str, ...], names: dict[str, str]) -> list[Command]:
    async with reading.opened(file) as bus:
        found = standing(await reading.control(bus), SystemClock.now())
        meant = {key: said for key, said in found.items() if _is_meant(key, said, which, names)}
        if not meant:
            what = " ".join(which) or ", ".join(f"{name} {value}" for name, value in names.items())
            output.fail(f"no command in force is about {what}; `mailfleet commands` lists those that are")
        for key in meant:
            await _write(bus, key, None)
        return list(meant.values())


def _is_meant(key: bytes, said: Command, which: tuple[str, ...], names: dict[str, str]) -> bool:
    if len(which) == 1:
        return said.id == which[0]
    if which:
        names = {which[0]: which[1]}
    return dict(said.about) == {
        name: value.lower() if name in ("domain", "site") else value for name, value in names.items()
    }
