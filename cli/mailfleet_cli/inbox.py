"""`mailfleet inbox`: what the sink got."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.table import Table

from mailfleet_cli import output
from mailfleet_cli.maildir import Stored, stored
from mailfleet_cli.main import Invocation
from mailfleet_cli.settings import RunSettings, inbox_of


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--last", default=20, show_default=True, help="How many to list.")
@click.pass_obj
def inbox(invocation: Invocation, number: int | None, as_json: bool, last: int) -> None:
    """List the mails in the sink, or print the one with NUMBER (1: the newest) as it came."""
    file = invocation.file()
    directory = inbox_of(file.section("run", RunSettings), file.origin)
    mails = list(stored(directory))[::-1]
    if number is not None:
        show(mails, number)
    elif as_json:
        for mail in mails[:last]:
            output.json(_fields(mail))
    else:
        _print_list(mails, last, directory)


def show(mails: list[Stored], number: int) -> None:
    """Print one mail, byte for byte."""
    if not 1 <= number <= len(mails):
        output.fail(f"there is no mail number {number}; the inbox has {len(mails)}")
    sys.stdout.buffer.write(mails[number - 1].path.read_bytes())


def _fields(mail: Stored) -> dict[str, object]:
    return {
        "name": mail.name,
        "arrived_at": mail.arrived_at,
        "reverse_path": mail.reverse_path,
        "recipients": mail.recipients,
        "subject": str(mail.message.get("Subject", "")),
        "message_id": str(mail.message.get("Message-ID", "")),
        "path": str(mail.path),
    }


def _print_list(mails: list[Stored], last: int, directory: Path) -> None:
    if not mails:
        output.out.print(f"The inbox ({directory}) is empty. `mailfleet send --to you@example.org` sends a first mail.")
        return
    table = Table("#", "arrived", "from", "to", "subject", box=None, header_style="bold")
    for number, mail in enumerate(mails[:last], 1):
        cells = (mail.reverse_path or "<>", ", ".join(mail.recipients), str(mail.message.get("Subject", "")))
        table.add_row(str(number), output.clock(mail.arrived_at), *map(output.clean, cells))
    output.out.print(table)
    output.out.print(f"{len(mails)} in all, in {directory}; `mailfleet inbox 1` prints the newest", style="dim")
