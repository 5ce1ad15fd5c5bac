"""`mailfleet feedback`: complaints of recipients, from a mailbox provider's reports to the reputation."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import click

from mailfleet_cli import arf, complaining, output, reading
from mailfleet_cli.arf import NotAReport, Report
from mailfleet_cli.complaining import Found, Mails, Unfound
from mailfleet_cli.main import Invocation
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import complaint, ids, wire
from mailfleet_core.model.shards import Numbered, learn
from mailfleet_core.settings import SettingsFile

FEW = 32
"""So many marks are looked for in a record before it is taken apart; with more that is no quicker."""


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|-]...", type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--message-id", metavar="ID", help="Without a report: the id of the mail, ours or its Message-ID header.")
@click.option("--recipient", metavar="ADDRESS", help="With --message-id: who complains, if it had several recipients.")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a report.")
@click.pass_obj
def feedback(
    invocation: Invocation, files: tuple[str, ...], message_id: str | None, recipient: str | None, as_lines: bool
) -> None:
    """Count complaints: give reports in the Abuse Reporting Format (RFC 5965), one a file.

    Only give reports whose origin was checked. One that is fed again is not counted again.
    """
    if bool(files) == bool(message_id) or (recipient and not message_id):
        raise click.UsageError("give files with reports, or - for one on stdin, or --message-id")
    reports = {"--message-id": _bare(message_id, recipient)} if message_id else {name: _read(name) for name in files}
    wanted = [report for report in reports.values() if isinstance(report, Report) and report.complains]
    found = reading.run(_feed(invocation.file(), wanted)) if wanted else {}
    failed = False
    for name, report in reports.items():
        failed |= _tell(name, report, found.get(report, []) if isinstance(report, Report) else report, as_lines)
    if failed:
        sys.exit(1)


def _bare(message_id: str, recipient: str | None) -> Report:
    to = (recipient,) if recipient else ()
    try:
        return Report("abuse", (ids.text(ids.parse(message_id)[: ids.MESSAGE_ID_BYTES]),), recipients=to)
    except ValueError:
        return Report("abuse", header_message_id=message_id.strip("<> "), recipients=to)


def _read(name: str) -> Report | str:
    """The report in a file, or why there is none."""
    try:
        return arf.parse(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        return str(error.strerror)
    except NotAReport as error:
        return f"no report: {error}"


async def _feed(file: SettingsFile, reports: list[Report]) -> dict[Report, list[Found] | str]:
    """What each report came to: complaints, all of them durable, or why there is none."""
    async with reading.opened(file) as bus:
        mails, shards, now = await _look_up(bus, reports), await _shards(bus), SystemClock.now()
        came_to: dict[Report, list[Found] | str] = {}
        for report in dict.fromkeys(reports):
            try:
                found = complaining.complaints(report, mails.of(report), now)
            except Unfound as error:
                came_to[report] = str(error)
                continue
            for each in found:
                if not each.known:
                    await _write(bus, each, shards)
                    mails.take(each.event)
            came_to[report] = found
        return came_to


async def _look_up(bus: Bus, reports: list[Report]) -> Mails:
    mails = Mails(reports)
    await _pass(bus, mails)
    if mails.named:
        # By its Message-ID only the record of its acceptance was found.
        await _pass(bus, mails)
    return mails


async def _pass(bus: Bus, mails: Mails) -> None:
    marks = mails.marks()

    def take(record: Record) -> None:
        if record.value is None:
            return
        lowered = record.value.lower() if len(marks) <= FEW else b""
        if lowered and not any(mark in lowered for mark in marks):
            return
        for event in wire.told(record.value):
            mails.take(event)

    await reading.everything(bus, topics.EVENTS, take)


async def _shards(bus: Bus) -> dict[str, Numbered]:
    found: dict[str, Numbered] = {}

    def take(record: Record) -> None:
        learn(found, record.offset, record.key, record.value)

    await reading.everything(bus, topics.CONTROL, take)
    return found


async def _write(bus: Bus, found: Found, shards: dict[str, Numbered]) -> None:
    """First what is counted, then what is told: a complaint whose story is not told is simply fed again."""
    home = complaint.partition(found.complaint, shards, bus.partitions(topics.SITE))
    await bus.append(topics.SITE, home, found.key, complaint.encode(found.complaint), topics.tag(topics.PUT))
    where = zlib.crc32(found.key) % bus.partitions(topics.EVENTS)
    await bus.append(topics.EVENTS, where, b"", wire.tell([found.event]), topics.tag(topics.PUT))


def _tell(name: str, report: Report | str, came_to: list[Found] | str, as_lines: bool) -> bool:
    """Say what became of a report. True: it was not understood, or not found."""
    if isinstance(report, Report) and not report.complains:
        _say(name, {"result": "none", "why": f"no complaint: feedback type {report.kind}"}, as_lines)
        return False
    if isinstance(came_to, str):
        _say(name, {"result": "failed", "why": came_to}, as_lines)
        return True
    for found in came_to:
        ((_, address),) = found.event.recipients
        told = {"result": "known" if found.known else "counted", "message_id": found.event.message_id, "recipient": address,
                "kind": found.complaint.kind, "tenant": found.complaint.tenant, "stream": found.complaint.stream,
                "source": found.complaint.source, "site": found.complaint.site, "by": found.complaint.by}  # fmt: skip
        _say(name, told, as_lines)
    return False


def _say(name: str, told: dict[str, str], as_lines: bool) -> None:
    if as_lines:
        output.json({"report": name, **told})
        return
    if "why" in told:
        text = told["why"]
    else:
        what = f"{told['kind']} of {told['recipient']} about {told['message_id']}"
        where = f"source {told['source']}, site {told['site']}, tenant {told['tenant']}"
        text = f"{what}, {where}{'' if told['result'] == 'counted' else ': counted already'}"
    output.out.print(f"{output.clean(name)}: {output.clean(text)}")
