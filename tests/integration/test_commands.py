"""`mailfleet suspend`, `bounce`, `reroute`, `retry`, `resume` and `commands` on a running fleet."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfleet_core.model import ids
from mailfleet_core.model.wire import Event
from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
BUSY, CALM, QUIET = "busy.test", "calm.test", "quiet.test"
SETTINGS = {
    "bus": {"lanes": 2},
    "source": [
        {"name": "default", "ehlo_name": "source.mailfleet.test"}, {"name": "second", "ehlo_name": "second.mailfleet.test"},
    ],
    "pool": [
        {"name": "default", "sources": [{"source": "default"}]}, {"name": "spare", "sources": [{"source": "second"}]},
    ],
    "stream": [{"name": "transactional", "retry_seconds": [600.0], "jitter": 0.0, "expire_seconds": 7200.0}],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """A fleet with two sources, a site that puts mail off and two that take it."""

    fleet: Fleet

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAILFLEET, "--config", str(self.fleet.config), *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def told(self, *words: str) -> str:
        done = self.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def standing(self) -> list[dict]:
        return [json.loads(line) for line in self.told("commands", "--json").splitlines()]

    def hand_in(self, recipient: str, header: str = "") -> str:
        """The id of a mail that was accepted."""
        with smtplib.SMTP("127.0.0.1", self.fleet.port, timeout=30) as client:
            client.ehlo()
            client.mail("me@sender.test")
            client.rcpt(recipient)
            code, text = client.data(f"{header}Subject: x\r\n\r\nx\r\n".encode())
        assert code == 250, text
        return text.split()[-1].decode()

    def story(self, message: str) -> list[Event]:
        events = [event for event in self.fleet.events() if event.unit[:16] == ids.parse(message)]
        return sorted(events, key=lambda event: event.at)

    def wait(self, message: str, kind: str, times: int = 1) -> Event:
        def seen() -> bool:
            return [event.kind for event in self.story(message)].count(kind) >= times

        until(seen, 40, self.fleet.logs)
        return [event for event in self.story(message) if event.kind == kind][-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    busy = ScriptedMx(replies={"RCPT": b"451 4.7.1 Greylisted, come back in a while"})
    receivers = {BUSY: busy, CALM: ScriptedMx(), QUIET: ScriptedMx()}
    with (
        scripted_town(receivers) as town,
        fleet(tmp_path_factory.mktemp("commands"), more={**town.settings, **SETTINGS}) as running,
    ):
        yield World(running)


def test_what_is_suspended_by_tenant_and_domain_waits_and_nothing_else(world: World) -> None:
    said = world.told("suspend", "--tenant", "default", "--domain", CALM, "--reason", "they asked", "--author", "ann")
    assert "domain calm.test, tenant default is in force" in said
    held, other = world.hand_in(f"a@{CALM}"), world.hand_in(f"b@{QUIET}")
    event = world.wait(held, "held")
    assert ("they asked" in event.text, event.by) == (True, "ann")
    world.wait(other, "delivered")
    (standing,) = world.standing()
    assert (standing["action"], standing["about"]) == ("suspend", {"tenant": "default", "domain": CALM})
    assert "1 units wait" in world.told("suspend", "--domain", CALM, "--reason", "x", "--dry-run")
    assert len(world.standing()) == 1
    assert "goes on" in world.told("resume", "--domain", CALM.upper(), "--tenant", "default")
    assert world.wait(held, "delivered").attempt == 1
    assert not world.standing()


def test_a_bounced_campaign_ends_what_waits_of_it(world: World) -> None:
    meant = world.hand_in(f"a@{BUSY}", "X-Campaign: spring\r\n")
    spared = world.hand_in(f"b@{BUSY}", "X-Campaign: autumn\r\n")
    for message in (meant, spared):
        world.wait(message, "deferred")
    said = world.told("bounce", "--campaign", "spring", "--reason", "wrong list", "--author", "ann")
    assert "1 units wait" in said
    event = world.wait(meant, "cancelled")
    assert (event.enhanced, event.text) == ("5.7.1", "ended by ann: wrong list")
    assert [each.kind for each in world.story(spared)][-1] == "deferred"
    (standing,) = world.standing()
    assert standing["until"] > standing["at"], "a bounce lapses by itself"
    world.told("resume", standing["id"])


def test_rerouted_mail_goes_by_the_other_pool(world: World) -> None:
    world.told("reroute", "--domain", QUIET, "--to", "spare", "--reason", "listed", "--for", "1h")
    assert world.wait(world.hand_in(f"c@{QUIET}"), "delivered").source == "second"
    assert world.wait(world.hand_in(f"c@{CALM}"), "delivered").source == "default"
    world.told("resume", "--domain", QUIET)
    assert world.wait(world.hand_in(f"d@{QUIET}"), "delivered").source == "default"


def test_a_suspended_source_holds_the_mail_that_has_no_other(world: World) -> None:
    world.told("suspend", "--source", "default", "--domain", QUIET, "--reason", "listed")
    held = world.hand_in(f"e@{QUIET}")
    assert "source default is suspended: listed" in world.wait(held, "held").text
    world.told("resume", "--source", "default", "--domain", QUIET)
    world.wait(held, "delivered")


def test_deferred_mail_is_tried_now_when_told(world: World) -> None:
    message = world.hand_in(f"f@{BUSY}")
    world.wait(message, "deferred")
    world.told("retry", "--message", message.lower(), "--reason", "they say it works again")
    assert world.wait(message, "deferred", times=2).attempt == 2
    world.told("resume", "--message", message)


def test_the_old_words_hold_a_domain_as_well(world: World) -> None:
    assert "is suspended until" in world.told("suspend", "site", CALM.upper(), "--reason", "they asked", "--for", "1h")
    held = world.hand_in(f"g@{CALM}")
    world.wait(held, "held")
    assert [each["id"] for each in world.standing()] == [f"site {CALM}"]
    world.told("resume", "site", CALM)
    world.wait(held, "delivered")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("reroute", "--tenant", "a", "--to", "nowhere", "--reason", "x"), "there is no pool 'nowhere'"),
        (("suspend", "--source", "ip-9", "--reason", "x"), "there is no source 'ip-9'"),
        (("suspend", "--reason", "x"), "say what it is about"),
        (("bounce", "--tenant", "a"), "--reason"),
        (("retry", "--message", "xyz", "--reason", "x"), "is not a message id"),
        (("resume", "nothing"), "`mailfleet commands` lists"),
        (("resume",), "write `resume ID`"),
        (("suspend", "domain", "x", "--reason", "x"), "options such as"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(world: World, words: tuple[str, ...], text: str) -> None:
    done = world.command(*words)
    assert done.returncode
    assert text in done.stderr.replace("\n", " ")
    assert not world.standing()
