"""What a running router tells of its partitions, and how a complaint comes to be counted."""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfleet_cli import reading
from mailfleet_core import settings
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Record
from mailfleet_core.model import fleet as model
from mailfleet_core.model import stats
from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
REPORT = Path(__file__).parent.parent / "unit" / "cli" / "reports" / "abuse.eml"
BUSY, CALM, STRICT = "busy.test", "calm.test", "strict.test"
POLICY = f"""\
version: 1
providers: [{{name: calm, mx: [mx.{CALM}], feedback: true}}]
rules:
- name: asked-to-slow-down
  text: 'slow down, please'
  class: rate_limited
  blame: sender_ip
  effect: pause
  scope: source_site
  samples: {{match: [421 4.7.0 slow down, please], not: [421 4.7.0 busy]}}
"""
PATIENT = {"stream": [{"name": "transactional", "retry_seconds": [600.0], "jitter": 0.0, "expire_seconds": 7200.0}]}
SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class World:
    """A fleet that has delivered a mail, had one refused, and was asked to slow down."""

    fleet: Fleet
    delivered: str
    """Message id."""

    def command(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAILFLEET, "--config", str(self.fleet.config), *words],
            input=text, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def records(self) -> dict[int, stats.Stats]:
        """What lies in `mail.stats`, by partition."""
        found: dict[int, stats.Stats] = {}

        def take(record: Record) -> None:
            if record.value is not None:
                said = stats.decode(record.value)
                found[said.partition] = said

        async def read() -> None:
            async with reading.opened(settings.load(self.fleet.config, {})) as bus:
                await reading.everything(bus, topics.STATS, take)

        asyncio.run(read())
        return found

    def told(self) -> model.Fleet:
        """The fleet as it is told."""
        found = model.Fleet()
        for said in self.records().values():
            found.read(said)
        return found


def hand_in(running: Fleet, recipient: str) -> str:
    """The id of a mail that was accepted."""
    with smtplib.SMTP("127.0.0.1", running.port, timeout=30) as client:
        client.ehlo()
        client.mail("")
        client.rcpt(recipient)
        code, text = client.data(b"Subject: x\r\nMessage-ID: <one@sender.test>\r\n\r\nx\r\n")
    assert code == 250, text
    return text.split()[-1].decode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("stats")
    (directory / "policy.yaml").write_text(POLICY)
    busy = ScriptedMx(replies={"RCPT": b"421 4.7.0 Slow down, please"})
    strict = ScriptedMx(replies={"RCPT": b"550 5.1.1 There is no such user"})
    with (
        scripted_town({BUSY: busy, CALM: ScriptedMx(), STRICT: strict}) as town,
        fleet(directory, more={**town.settings, **PATIENT}) as running,
    ):
        mails = [hand_in(running, f"user@{domain}") for domain in (CALM, STRICT, BUSY)]
        until(
            lambda: {"deferred", "delivered", "bounced"} <= {event.kind for event in running.events()}, 60, running.logs
        )
        yield World(running, mails[0])


def test_the_record_says_what_was_delivered_refused_and_paused(world: World) -> None:
    until(lambda: world.told().source("default").delivered > 0 < world.told().source("default").bounced, SECONDS,
          world.fleet.logs)  # fmt: skip
    until(lambda: bool(world.told().troubles), SECONDS, world.fleet.logs)
    of = world.told()
    assert of.complete
    (trouble,) = of.troubles
    assert (trouble.source, trouble.site, trouble.state) == ("default", f"mx.{BUSY}", stats.PAUSED)
    assert trouble.rule == "asked-to-slow-down"
    assert "Slow down" in trouble.reply
    assert trouble.until > trouble.since > 0
    assert of.pool("default").waiting == 1
    assert of.source("default").sent_today == 3


def test_a_complaint_is_counted_once_and_told_and_the_next_owner_knows_it(world: World) -> None:
    report = REPORT.read_text().replace("mailbox.example", CALM).replace("01ARZ3NDEKTSV4RRFFQ69G5FAV", world.delivered)
    first = world.command("feedback", "-", text=report)
    assert first.returncode == 0, first.stderr
    assert f"abuse of user@{CALM} about {world.delivered}" in first.stdout
    assert "counted already" not in first.stdout
    again = world.command("feedback", "--message-id", world.delivered)
    assert again.returncode == 0, again.stderr
    assert "counted already" in again.stdout
    assert f"abuse, reported by {CALM}" in world.command("trace", world.delivered).stdout
    until(lambda: complained(world) > 0, SECONDS, world.fleet.logs)
    assert complained(world) == 1

    before = {number: said.epoch for number, said in world.records().items()}
    world.fleet.kill("router-0")
    world.fleet.start_one("router-0")
    world.fleet.wait_ready("router-0")
    until(
        lambda: all(said.epoch > before[number] for number, said in world.records().items()), SECONDS, world.fleet.logs
    )
    until(lambda: complained(world) > 0, SECONDS, world.fleet.logs)
    assert complained(world) == 1


def test_what_is_no_complaint_or_about_no_mail_is_said_and_not_counted(world: World) -> None:
    none = world.command("feedback", str(REPORT.with_name("not-spam.eml")))
    assert (none.returncode, "no complaint: feedback type not-spam" in none.stdout) == (0, True)
    unknown = world.command("feedback", "--message-id", "nobody@nowhere.test")
    assert (unknown.returncode, "no mail is known" in unknown.stdout) == (1, True)
    broken = world.command("feedback", str(REPORT.with_name("no-report.eml")))
    assert (broken.returncode, "no report" in broken.stdout) == (1, True)


def complained(world: World) -> int:
    """Complaints counted for the source, and for the tenant."""
    of = world.told()
    counts = {of.source("default").reading.seen[5], *(of.tenant(name).reading.seen[5] for name in of.tenants)}
    return max(counts) if len(counts) == 1 else -1
