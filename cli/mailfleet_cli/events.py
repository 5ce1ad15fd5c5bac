"""`mailfleet events`: what was recorded, for people, for keeping, and for `whatif`."""

from __future__ import annotations

import click

from mailfleet_cli import output, recording
from mailfleet_cli.main import Invocation
from mailfleet_cli.story import as_json, tell
from mailfleet_core.clock import SystemClock
from mailfleet_core.model.wire import EVENT_KINDS


@click.command()
@click.option("--since", default="1h", show_default=True, callback=recording.span, metavar="90s|15m|24h|7d",
              help="Only what happened in so long a time until now.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, type=click.Choice(EVENT_KINDS), help="Only this kind; several.")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a line; `whatif --from` reads them.")
@click.pass_obj
def events(invocation: Invocation, since: float, kinds: tuple[str, ...], as_lines: bool) -> None:
    """Print the events of all mail, in order of time. They are kept for 7 days.

    What another policy would have made of them: `mailfleet whatif`. The story of one mail: `mailfleet trace`.
    """
    with output.progress("reading events") as seen:
        for event in recording.from_log(invocation.file(), SystemClock.now() - since, seen):
            if kinds and event.kind not in kinds:
                continue
            if as_lines:
                output.json(as_json(event))
            else:
                said = output.clean(tell(event))
                output.out.print(f"{output.clock(event.at)}  {event.unit_id}  {event.kind:<10} {said}")
