"""`mailfleet whatif` and `events` on a running fleet: what a site really answered, replayed against another policy."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.kafka import kafka_broker
from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import ScriptedTown, scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
BUSY, CALM = "busy.test", "calm.test"
PAUSES = """\
version: 1
rules:
- name: moon
  text: 'the moon is full'
  class: rate_limited
  blame: sender_ip
  effect: pause
  scope: source_site
  samples: {match: [421 4.7.0 the moon is full], not: [421 4.7.0 busy]}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A fleet that has sent three mails to a site that answers 421 twice each, and one to a calm one."""

    fleet: Fleet
    town: ScriptedTown
    directory: Path

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAILFLEET, "--config", str(self.fleet.config), *words],
            cwd=self.directory, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def replayed(self, *words: str) -> dict:
        done = self.command("whatif", "--policy", str(self.directory / "new.yaml"), "--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("whatif")
    (directory / "new.yaml").write_text(PAUSES)
    refusals = [b"421 4.7.0 The moon is full"] * 6
    busy = ScriptedMx(replies={"RCPT": [*refusals, b"250 2.1.5 Ok"]})
    with ExitStack() as stack:
        broker = stack.enter_context(kafka_broker(directory / "kafka")) if request.param == "kafka" else None
        town = stack.enter_context(scripted_town({BUSY: busy, CALM: ScriptedMx()}))
        running = stack.enter_context(fleet(directory / "fleet", broker=broker, more=town.settings))
        with smtplib.SMTP("127.0.0.1", running.port, timeout=30) as client:
            for number in range(3):
                client.sendmail("me@sender.test", f"a{number}@{BUSY}", "Subject: x\r\n\r\nx\r\n")
            client.sendmail("me@sender.test", f"b@{CALM}", "Subject: x\r\n\r\nx\r\n")
        until(lambda: len(town.mx[BUSY].mails) == 3 and town.mx[CALM].mails, 60, running.logs)
        until(lambda: sum(event.kind == "delivered" for event in running.events()) == 4, 20, running.logs)
        yield World(running, town, directory)


def test_what_a_site_answered_is_replayed_from_the_running_log_against_a_new_rule(world: World) -> None:
    report = world.replayed("--from", "bus", "--since", "1h")
    (rule,) = [rule for rule in report["rules"] if rule["rule"] == "moon"]
    refused = sum(event.kind == "deferred" for event in world.fleet.events())
    assert refused == 6
    assert (rule["tried"]["replies"], rule["in_force"]["replies"]) == (refused, 0)
    assert rule["samples"][0]["text"] == "The moon is full"
    paused = [scope for scope in report["scopes"] if scope["tried"]["paused"]]
    assert [(scope["tried"]["paused_seconds"] > 0, scope["in_force"]["paused"]) for scope in paused] == [(True, 0)]
    assert report["attempts"] == refused + 4
    assert report["not_made_tried"] > report["not_made_in_force"] == 0


def test_it_says_plainly_that_it_predicts_our_queue_only(world: World) -> None:
    done = world.command("whatif", "--policy", str(world.directory / "new.yaml"))
    assert done.returncode == 0, done.stderr
    assert "This predicts our queue and not the receiver's reaction" in done.stdout
    assert "moon: before no reply; after 6 replies" in done.stdout


def test_a_kept_file_of_events_gives_the_same_report_as_the_log(world: World) -> None:
    kept = world.command("events", "--since", "1h", "--json")
    assert kept.returncode == 0, kept.stderr
    kinds = [json.loads(line)["kind"] for line in kept.stdout.splitlines()]
    assert (kinds.count("accepted"), kinds.count("deferred"), kinds.count("delivered")) == (4, 6, 4)
    (world.directory / "kept.jsonl").write_text(kept.stdout)
    assert world.replayed("--from", "kept.jsonl") == world.replayed("--from", "bus")


def test_what_is_older_is_left_out(world: World) -> None:
    time.sleep(1.1)
    done = world.command("whatif", "--policy", str(world.directory / "new.yaml"), "--since", "1s", "--json")
    assert json.loads(done.stdout)["attempts"] == 0
    assert (done.returncode, "look further back" in done.stderr) == (1, True)


def test_a_line_that_is_no_event_is_named(world: World) -> None:
    (world.directory / "wrong.jsonl").write_text('\n{"kind": "queued", "unit_id": "x"}\n')
    done = world.command("whatif", "--policy", str(world.directory / "new.yaml"), "--from", "wrong.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith("error: wrong.jsonl:2 is no event")
