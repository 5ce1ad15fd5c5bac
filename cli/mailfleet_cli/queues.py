"""`mailfleet queues`: which sites wait, how long, and why."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_core.clock import SystemClock
from mailfleet_core.settings import SettingsFile


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def queues(invocation: Invocation, as_json: bool) -> None:
    """Show the sites that have mail waiting: how much, since when, how fast it goes, and what it waits for."""
    sites = reading.run(_ask(invocation.file()))
    if as_json:
        for site in sites:
            output.json(site)
    elif not sites:
        output.out.print("Nothing waits.")
    else:
        output.out.print(_table(sites))


async def _ask(file: SettingsFile) -> list[dict[str, Any]]:
    async with reading.opened(file) as bus:
        routers = reading.members(await reading.control(bus), "router")
    answers = await reading.ask(routers, "/api/queues")
    if not answers:
        output.fail("no router answers; start them with `mailfleet run` or `python -m mailfleet_router`")
    sites = [site for answer in answers for site in (answer["sites"] if isinstance(answer, dict) else answer)]
    return sorted(sites, key=lambda site: -site["waiting"])


def _table(sites: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("site", overflow="fold")
    for name in ("waiting", "deferred", "in hand", "per s", "oldest", "next due"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    now = SystemClock.now()
    for site in sites:
        table.add_row(
            output.clean(str(site["site"])), f"{site['waiting']:,}", f"{site.get('deferred', 0):,}", _in_hand(site),
            f"{site.get('per_second', 0.0):,.1f}",
            output.span(now - site["oldest_at"]) if site.get("oldest_at") else "",
            output.moment(site["next_at"], now) if site.get("next_at") else "",
            output.clean(str(site.get("why", ""))),
        )  # fmt: skip
    return table


def _in_hand(site: dict[str, Any]) -> str:
    """How many are in senders' hands, of how many that may be."""
    window = site.get("window")
    return f"{site.get('in_flight', 0)}/{window}" if window else str(site.get("in_flight", 0))
