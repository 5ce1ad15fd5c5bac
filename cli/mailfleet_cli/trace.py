"""`mailfleet trace`: the story of a mail."""

from __future__ import annotations

from typing import Any

import click

from mailfleet_cli import asking, output, reading
from mailfleet_cli.main import Invocation
from mailfleet_cli.story import Question, as_json, open_units, question, tell
from mailfleet_core.model.wire import Event
from mailfleet_core.settings import SettingsFile

COLOURS = {
    "accepted": "cyan", "delivered": "green", "deferred": "yellow", "held": "yellow", "bounced": "red", "expired": "red",
    "in_doubt": "magenta", "suppressed": "red", "cancelled": "red", "complaint": "red",
}  # fmt: skip


@click.command()
@click.argument("what", metavar="MESSAGE-ID|RECIPIENT")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def trace(invocation: Invocation, what: str, as_lines: bool) -> None:
    """Tell the story of a mail: give the id from the 250, a recipient's address or the Message-ID header."""
    try:
        asked = question(what)
    except ValueError:
        output.fail(f"{what!r} is neither a message id (26 letters and digits), nor an address, nor a Message-ID")
    told, states = reading.run(_look_up(invocation.file(), asked))
    if as_lines:
        for event in (event for story in told.values() for event in story):
            output.json(as_json(event))
        for state in states:
            output.json({"kind": "state", **state})
    else:
        _print(told, states)
    if not told:
        output.fail(f"nothing is known of {what}; check the spelling (events are kept for 7 days)")


async def _look_up(file: SettingsFile, asked: Question) -> tuple[dict[str, list[Event]], list[dict[str, Any]]]:
    async with reading.opened(file) as bus:
        told = await asking.told(bus, asked)
        units = [unit for story in told.values() for unit in open_units(story)]
        routers = reading.members(await reading.control(bus), "router") if units else []
    answers = [await reading.ask(routers, f"/api/unit/{unit}") for unit in units[:20]]
    return told, [state for answer in answers for state in answer if isinstance(state, dict)]


def _print(told: dict[str, list[Event]], states: list[dict[str, Any]]) -> None:
    for message_id, story in told.items():
        output.out.print(f"[bold]{message_id}[/]")
        for event in story:
            _print_event(event)
    for state in states:
        output.out.print(f"[bold]now[/]  {output.clean(_now(state))}")


def _now(state: dict[str, Any]) -> str:
    """Where a unit that has not ended is at this moment, as its router says."""
    due = f", next try {output.clock(state['due_at'])}" if state.get("due_at") and state["state"] == "deferred" else ""
    why = f": {state['why']}" if state.get("why") else ""
    return f"{state['unit_id']} {state['state']}, attempts so far {state['attempts']}{due}, site {state['site']}{why}"


def _print_event(event: Event) -> None:
    kind = f"[{COLOURS.get(event.kind, 'default')}]{event.kind:<10}[/]"
    line = f"  {output.clock(event.at)}  {kind} {output.clean(tell(event))}"
    if event.until:
        line += f"; again {output.clock(event.until)}"
    output.out.print(line)
