"""`mailfleet why`: what holds a mail, who set it and where, its place in the queue, and when it would go."""

from __future__ import annotations

from typing import Any

import click

from mailfleet_cli import asking, output, reading
from mailfleet_cli.main import Invocation
from mailfleet_cli.story import Question, as_json, open_units, question, tell
from mailfleet_core.clock import SystemClock
from mailfleet_core.model.wire import TERMINAL_KINDS, Event
from mailfleet_core.settings import SettingsFile

MOST_UNITS = 20
"""Asked about; a recipient with more waiting mails hears of the newest ones."""


@click.command()
@click.argument("what", metavar="MESSAGE-ID|RECIPIENT")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def why(invocation: Invocation, what: str, as_lines: bool) -> None:
    """Say why a mail waits: give the id from the 250, a recipient's address or the Message-ID header.

    What became of a mail that does not wait any more is told instead; `mailfleet trace` has the whole story.
    """
    try:
        asked = question(what)
    except ValueError:
        output.fail(f"{what!r} is neither a message id (26 letters and digits), nor an address, nor a Message-ID")
    waiting, ended, unheard = reading.run(_look_up(invocation.file(), asked))
    for answer in waiting:
        _json_of(answer) if as_lines else _print(answer)
    for event in ended:
        output.json({"state": event.kind, **as_json(event)}) if as_lines else _print_end(event)
    for unit in unheard:
        output.err.print(f"{unit} is not settled, and no router says that it has it: is one running? "
                         "A new owner takes a moment.")  # fmt: skip
    if not (waiting or ended or unheard):
        output.fail(f"nothing is known of {what}; check the spelling (events are kept for 7 days)")


async def _look_up(file: SettingsFile, asked: Question) -> tuple[list[dict[str, Any]], list[Event], list[str]]:
    """Answers of routers, the ends of what has ended, and units that are open and that no router knows."""
    async with reading.opened(file) as bus:
        routers = reading.members(await reading.control(bus), "router")
        waiting = await _ask(routers, asked.message_id) if asked.message_id else []
        if waiting:
            # The routers know; there is no need to look through the events of a week.
            return waiting, [], []
        told = await asking.told(bus, asked)
    units = [unit for story in told.values() for unit in open_units(story)]
    for unit in units[-MOST_UNITS:]:
        waiting += await _ask(routers, unit)
    heard = {answer["unit"]["unit_id"] for answer in waiting}
    ends = [event for story in told.values() for event in story if event.kind in TERMINAL_KINDS]
    return waiting, ends, [unit for unit in units[-MOST_UNITS:] if unit not in heard]


async def _ask(routers: list[Any], identifier: str) -> list[dict[str, Any]]:
    answers = await reading.ask(routers, f"/api/why/{identifier}")
    return [each for answer in answers for each in (answer if isinstance(answer, list) else [answer])]


def _json_of(answer: dict[str, Any]) -> None:
    output.json({"state": answer["unit"]["state"], "unit_id": answer["unit"]["unit_id"], **answer})


def _print_end(event: Event) -> None:
    output.out.print(
        f"[bold]{event.unit_id}[/] does not wait: {event.kind} {output.clock(event.at)}, {output.clean(tell(event))}"
    )


def _print(answer: dict[str, Any]) -> None:
    for line in lines(answer, SystemClock.now()):
        output.out.print(line)


def lines(answer: dict[str, Any], now: float) -> list[str]:
    """A router's answer for people, in rich's markup."""
    unit, clean = answer["unit"], output.clean
    who = ", ".join(unit["recipients"][:3]) + (" …" if len(unit["recipients"]) > 3 else "")
    since = f" for {output.span(now - unit['since'])}" if unit.get("since") else ""
    about = ", ".join(
        f"{name} {unit[name]}" for name in ("site", "tenant", "stream", "pool", "campaign") if unit.get(name)
    )
    return [
        f"[bold]{unit['unit_id']}[/] to {clean(who)}: [bold]{unit['state']}[/]{since}",
        *(line for reason in answer["reasons"] for line in _reason(reason)),
        *([] if answer["reasons"] else [_label("why") + clean(answer["summary"])]),
        *_place(answer.get("place")),
        *_estimate(answer["estimate"], now),
        _label("unit") + f"{clean(about)}; attempts so far {unit['attempts']}",
        _label("") + f"accepted {output.clock(unit['accepted_at'])}, expires {output.clock(unit['expires_at'])}",
        _label("owner") + f"router {clean(unit['router'])}, partition {unit['partition']}",
    ]  # fmt: skip


def _label(text: str, style: str = "bold") -> str:
    return f"  [{style}]{text:<11}[/] "


def _reason(reason: dict[str, Any]) -> list[str]:
    parts = (
        f"until {output.clock(reason['until'])}" if reason.get("until") else "",
        f"set by {output.clean(reason['where'])}" if reason.get("where") else "",
        f"kept by the {output.clean(reason['owner'])}" if reason.get("owner") else "",
    )
    said = "; ".join(part for part in parts if part)
    head = _label(output.clean(reason["by"]), "yellow") + output.clean(reason["text"])
    return [head, _label("") + f"[dim]{said}[/]"] if said else [head]


def _place(place: dict[str, Any] | None) -> list[str]:
    if not place:
        return []
    return [_label("place") + f"{place['ahead'] + 1} of {place['of']} that are ready at the site"]


def _estimate(estimate: dict[str, Any], now: float) -> list[str]:
    text = output.clean(estimate["text"])
    if estimate["at"]:
        at = f"{output.clock(estimate['at'])}, in {output.span(estimate['at'] - now)}"
        text = f"{at}: {text}" if text else at
    return [_label("when") + text, *(_label("") + f"[dim]{output.clean(each)}[/]" for each in estimate["assumptions"])]
