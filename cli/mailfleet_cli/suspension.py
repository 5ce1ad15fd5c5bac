"""`mailfleet suspend` and `mailfleet resume`: a postmaster's "not now" for a site or a tenant."""

from __future__ import annotations

import getpass
import re
from datetime import datetime

import click

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import wire
from mailfleet_core.settings import SettingsFile

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
KIND = click.Choice(["site", "tenant"])


def seconds_of(text: str) -> float:
    """`90s`, `15m`, `2h`, `1d`, `1d12h`. Raises click.BadParameter."""
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise click.BadParameter(f"{text!r} is not a length of time; write 90s, 15m, 2h or 1d", param_hint="--for")
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))


def end_of(length: str | None, until: datetime | None, now: float) -> float:
    """When the suspension ends; 0: when somebody resumes."""
    if length and until:
        raise click.UsageError("give --for or --until, not both")
    if until and until.timestamp() <= now:
        raise click.BadParameter("is in the past", param_hint="--until")
    return until.timestamp() if until else now + seconds_of(length) if length else 0.0


@click.command()
@click.argument("kind", type=KIND)
@click.argument("name")
@click.option("--reason", required=True, help="Why; shown in `queues` and `trace`.")
@click.option("--for", "length", metavar="90s|15m|2h|1d", help="How long.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]), help="Until when.")
@click.pass_obj
def suspend(
    invocation: Invocation, kind: str, name: str, reason: str, length: str | None, until: datetime | None
) -> None:
    """Hold all mail of a site or a tenant; what is in senders' hands already goes on."""
    now = SystemClock.now()
    ends = end_of(length, until, now)
    value = wire.encode(wire.Suspension(reason, getpass.getuser(), now, ends))
    reading.run(_write(invocation.file(), kind, name, value))
    when = f"until {output.clock(ends)}" if ends else f"until `mailfleet resume {kind} {name}`"
    output.out.print(f"{kind} {output.clean(name)} is suspended {when}.")


@click.command()
@click.argument("kind", type=KIND)
@click.argument("name")
@click.pass_obj
def resume(invocation: Invocation, kind: str, name: str) -> None:
    """End a suspension."""
    reading.run(_write(invocation.file(), kind, name, None))
    output.out.print(f"{kind} {output.clean(name)} goes on.")


def key_of(kind: str, name: str) -> bytes:
    """The key in `mail.control`."""
    return f"suspend|{kind}|{name.lower() if kind == 'site' else name}".encode()


async def _write(file: SettingsFile, kind: str, name: str, value: bytes | None) -> None:
    async with reading.opened(file) as bus:
        key = key_of(kind, name)
        if value is None and key not in await reading.control(bus):
            output.fail(f"{kind} {name} is not suspended; `mailfleet queues` shows what waits and why")
        await bus.append(topics.CONTROL, 0, key, value, topics.tag(topics.PUT if value is not None else topics.DONE))
