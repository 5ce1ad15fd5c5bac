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
    """Show the sites that have mail waiting: how much, since when, and what it waits for."""
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
    table = Table("site", "waiting", "in flight", "oldest", "next try", "why", box=None, header_style="bold")
    now = SystemClock.now()
    for site in sites:
        table.add_row(
            output.clean(str(site["site"])),
            str(site["waiting"]),
            str(site.get("in_flight", "")),
            output.span(now - site["oldest_at"]) if site.get("oldest_at") else "",
            output.clock(site["next_at"]) if site.get("next_at") else "",
            output.clean(str(site.get("why", ""))),
        )
    return table
