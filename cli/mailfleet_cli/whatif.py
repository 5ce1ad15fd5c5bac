"""`mailfleet whatif`: what another traffic policy would have made of what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from mailfleet_cli import output, recording
from mailfleet_cli.main import Invocation
from mailfleet_cli.policy import FILE, load, settings_of
from mailfleet_core.clock import SystemClock
from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.decisions.shaping.whatif import Report, plan, what_if
from mailfleet_router.decisions.shaping.whatif_text import lines
from mailfleet_router.shell import traffic

FROM_LOG = "bus"
DAY = 86_400.0


@click.command()
@click.option("--policy", "tried", type=FILE, required=True, help="The policy to try, over the shipped one.")
@click.option("--in-force", type=FILE, help="The policy to compare with.  [default: the one that the settings mean]")
@click.option("--from", "origin", default=FROM_LOG, show_default=True, metavar="bus|FILE",
              help="The events: in the log, or in a file from `mailfleet events --json` (`-`: standard input).")  # fmt: skip
@click.option("--since", callback=recording.span, metavar="90s|15m|24h|7d",
              help="Only what happened in so long a time until now.  [default: 24h; of a file: everything]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def whatif(
    invocation: Invocation, tried: Path, in_force: Path | None, origin: str, since: float | None, as_json: bool
) -> None:
    """Replay recorded attempts against a changed policy.

    Says which rules would have matched, who would have been paused, and how long mail would have waited, next to what
    really happened. It predicts our queue and not the receiver's reaction.
    """
    known = settings_of(invocation)
    before = in_force or (traffic.own_file(known) if known else None)
    plans = plan(load(before)), plan(load(tried))
    with output.progress("replaying events") as seen:
        try:
            report = what_if(_events(invocation, origin, since, seen), *plans)
        except PolicyError as error:
            output.fail(str(error))
    if as_json:
        output.json(msgspec.to_builtins(report))
    else:
        _print(report, str(before or "the shipped policy"), str(tried))
    if not report.attempts:
        output.fail("no attempt was recorded in this time; look further back with --since")


def _events(invocation: Invocation, origin: str, since: float | None, seen: recording.Seen) -> Iterator[Event]:
    now = SystemClock.now()
    if origin == FROM_LOG:
        yield from recording.from_log(invocation.file(), now - (since or DAY), seen)
        return
    try:
        with click.open_file(origin, encoding="utf-8") as file:
            yield from recording.from_lines(file, now - since if since else 0.0, origin)
    except OSError as error:
        output.fail(f"{origin} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        output.fail(f"{origin} is not text in UTF-8")


def _print(report: Report, before: str, after: str) -> None:
    output.out.print(f"[bold]before[/]: {output.clean(before)}; [bold]after[/]: {output.clean(after)}")
    for line in lines(report):
        output.out.print(output.clean(line), style=_style(line))


def _style(line: str) -> str | None:
    if line.startswith("      "):
        return "dim"
    if line.startswith("  "):
        return "yellow" if "before" in line and "after" in line else None
    return "bold" if line.endswith(":") else None
