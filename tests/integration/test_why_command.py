"""`mailfleet why`, `site` and `queues` on a running fleet whose mail waits for different reasons."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import ScriptedTown, scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
BUSY, CALM, STRICT = "busy.test", "calm.test", "strict.test"
POLICY = """\
version: 1
rules:
- name: asked-to-slow-down
  text: 'slow down, please'
  class: rate_limited
  blame: sender_ip
  effect: pause
  scope: source_site
  samples: {match: [421 4.7.0 slow down, please], not: [421 4.7.0 busy]}
"""
PATIENT = {"stream": [{"name": "transactional", "retry_seconds": [600.0], "jitter": 0.0, "expire_seconds": 7200.0}]}


@dataclass(frozen=True, slots=True)
class World:
    """A fleet with a mail that a busy site put off, one that was delivered, and one that made its source pause."""

    fleet: Fleet
    town: ScriptedTown
    deferred: str
    delivered: str
    refused: str
    """Message ids."""

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAILFLEET, "--config", str(self.fleet.config), *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def lines(self, *words: str) -> list[dict]:
        done = self.command(*words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def hand_in(fleet: Fleet, recipient: str) -> str:
    """The id of a mail that was accepted."""
    with smtplib.SMTP("127.0.0.1", fleet.port, timeout=30) as client:
        client.ehlo()
        client.mail("me@sender.test")
        client.rcpt(recipient)
        code, text = client.data(b"Subject: x\r\nMessage-ID: <one@sender.test>\r\n\r\nx\r\n")
    assert code == 250, text
    return text.split()[-1].decode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("why")
    busy = ScriptedMx(replies={"RCPT": b"452 4.2.2 The mailbox is full"})
    strict = ScriptedMx(replies={"RCPT": b"421 4.7.0 Slow down, please"})
    (directory / "policy.yaml").write_text(POLICY)
    with (
        scripted_town({BUSY: busy, CALM: ScriptedMx(), STRICT: strict}) as town,
        fleet(directory, more={**town.settings, **PATIENT}) as running,
    ):
        deferred, delivered, refused = (hand_in(running, to) for to in (f"a@{BUSY}", f"b@{CALM}", f"c@{STRICT}"))
        until(lambda: sum(e.kind in ("deferred", "delivered") for e in running.events()) == 3, 60, running.logs)
        yield World(running, town, deferred, delivered, refused)


def test_a_deferred_mail_is_told_with_the_reply_and_the_time_of_the_next_try(world: World) -> None:
    (told,) = world.lines("why", world.deferred)
    assert (told["state"], told["unit"]["recipients"], told["unit"]["attempts"]) == ("deferred", [f"a@{BUSY}"], 1)
    assert "452 4.2.2 The mailbox" in told["summary"]
    assert 500 < told["estimate"]["at"] - time.time() <= 600
    text = world.command("why", world.deferred).stdout
    assert "kept by the router" in text
    assert "set by retry_seconds of stream transactional" in text


@pytest.mark.parametrize("question", [f"a@{BUSY}", f"A@{BUSY.upper()}"])
def test_a_recipient_will_do_for_the_question(world: World, question: str) -> None:
    assert [told["unit_id"][:26] for told in world.lines("why", question)] == [world.deferred]


def test_a_message_id_of_the_header_finds_all_its_mails(world: World) -> None:
    told = world.lines("why", "<one@sender.test>")
    assert {(each["unit_id"][:26], each["state"]) for each in told} >= {
        (world.deferred, "deferred"), (world.delivered, "delivered"), (world.refused, "deferred"),
    }  # fmt: skip


def test_of_a_mail_that_does_not_wait_it_is_said_what_became_of_it(world: World) -> None:
    done = world.command("why", world.delivered)
    assert done.returncode == 0, done.stderr
    assert "does not wait: delivered" in done.stdout
    assert f"b@{CALM}" in done.stdout


def test_of_an_unknown_mail_nothing_is_known(world: World) -> None:
    done = world.command("why", "nobody@nowhere.test")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is known of nobody@nowhere.test" in done.stderr


def test_a_suspension_is_shown_with_who_made_it_as_the_reason(world: World) -> None:
    (site,) = [row["site"] for row in world.lines("queues") if BUSY in row["site"]]
    assert world.command("suspend", "site", site, "--reason", "they asked").returncode == 0
    try:
        until(lambda: "they asked" in world.lines("why", world.deferred)[0]["summary"], 20)
        (told,) = world.lines("why", world.deferred)
        assert [reason["by"] for reason in told["reasons"]] == ["suspension", "deferral"]
        assert told["estimate"]["at"] == 0
    finally:
        assert world.command("resume", "site", site).returncode == 0


def test_a_site_shows_its_queue_its_last_reply_and_its_pace(world: World) -> None:
    (page,) = world.lines("site", f"mx.{BUSY}")
    assert (page["queue"]["states"], page["queue"]["waiting"]) == ({"deferred": 1}, 1)
    assert page["pace"]["replies"]["4xx"]["text"].endswith("The mailbox is full")
    text = world.command("site", f"mx.{BUSY}").stdout
    assert "1 deferred" in text
    assert "last 4xx" in text
    assert world.command("site", "mx.nowhere.test").returncode == 1


def test_a_pause_that_a_reply_caused_is_told_with_the_rule_and_its_line(world: World) -> None:
    waiting = hand_in(world.fleet, f"d@{STRICT}")
    until(lambda: world.lines("why", waiting)[0]["state"] == "ready", 20)
    (told,) = world.lines("why", waiting)
    (pause,) = [reason for reason in told["reasons"] if reason["by"] == "pause"]
    assert pause["text"].startswith(
        f"source default at site mx.{STRICT} is paused: rule asked-to-slow-down by the reply 421"
    )
    assert pause["where"] == f"{world.fleet.directory / 'policy.yaml'}:3"
    assert 200 < pause["until"] - time.time() <= 300
    assert told["estimate"]["at"] >= pause["until"]
    assert told["place"] == {"ahead": 0, "of": 1}
    text = world.command("site", f"mx.{STRICT}").stdout
    assert "paused        source default at site" in text
    (scope,) = json.loads(world.command("top", "--json").stdout)["paused"]
    assert (scope["scope"], scope["until"]) == (f"source default at site mx.{STRICT}", pause["until"])
    (row,) = [row for row in world.lines("queues") if row["site"] == f"mx.{STRICT}"]
    assert "asked-to-slow-down" in row["why"]
