"""Sources that come from the log, on a running fleet whose senders take some lanes only: they come, drain and go under load."""

from __future__ import annotations

import asyncio
import json
import smtplib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfleet_cli import reading
from mailfleet_core import settings
from mailfleet_core.bus import topics
from mailfleet_core.model import wire
from mailfleet_core.model.wire import DRAINING, QUARANTINED
from support.kafka import kafka_broker
from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import ScriptedTown, scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
DOMAINS = ("one.test", "two.test")
ADDRESSES = {"ip-1": "127.0.0.11", "ip-2": "127.0.0.12", "ip-3": "127.0.0.13"}
SETTINGS = {
    "bus": {"lanes": 4},
    "egress": {"sources": "control"},
    "source": [],
    "stream": [{"name": "transactional", "retry_seconds": [1.0], "jitter": 0.0, "expire_seconds": 7200.0}],
}
LANES = {
    "sender-0": {"MAILFLEET_SENDER__LANES": "0,2"},
    "sender-1": {"MAILFLEET_SENDER__LANES": "1,2"},
}
"""The first lane of each is nobody else's; the third is either's."""


def source(name: str, *lanes: int, **more: str) -> wire.Source:
    """A source as the log has it."""
    return wire.Source(name, "default", address=ADDRESSES[name], lanes=lanes, **more)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class World:
    """A fleet with two restricted senders, and two sites that are not quick."""

    fleet: Fleet
    town: ScriptedTown

    def told(self, *words: str) -> str:
        done = subprocess.run(
            [MAILFLEET, "--config", str(self.fleet.config), *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def set(self, name: str, lanes: str, **more: str) -> None:
        options = [f"--{option}={value}" for option, value in more.items()]
        self.told("source", "set", name, f"--address={ADDRESSES[name]}", f"--lanes={lanes}", *options)

    def write(self, *sources: wire.Source | None) -> None:
        """Into the log at once, one after the other; None takes ip-1 away."""

        async def append() -> None:
            async with reading.opened(settings.load(self.fleet.config, {})) as bus:
                for each in sources:
                    key = b"source|" + (each.name if each else "ip-1").encode()
                    await bus.append(topics.CONTROL, 0, key, each and wire.encode(each))

        asyncio.run(append())

    def goes_by(self, name: str) -> None:
        """Wait until more mail has come from the address of a source."""
        before = self.hosts().count(ADDRESSES[name])
        until(lambda: self.hosts().count(ADDRESSES[name]) > before + 5, 60, self.fleet.logs)

    def hand_in(self, first: int, count: int) -> list[str]:
        """The recipients of so many mails that were accepted."""
        recipients = [f"u{number}@{DOMAINS[number % 2]}" for number in range(first, first + count)]
        with smtplib.SMTP("127.0.0.1", self.fleet.port, timeout=60) as client:
            for recipient in recipients:
                client.sendmail("me@sender.test", [recipient], b"Subject: x\r\n\r\nx\r\n")
        return recipients

    def arrived(self) -> Counter[str]:
        """How often each recipient's site took a mail for it."""
        mails = [mail for mx in self.town.mx.values() for mail in mx.mails]
        return Counter(line.decode().split("<")[1].split(">")[0] for mail in mails for line in mail.rcpt)

    def hosts(self) -> list[str]:
        """From which addresses mail came, in order for each site."""
        return [mx.peers[mail.connection - 1][0] for mx in self.town.mx.values() for mail in tuple(mx.mails)]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=[pytest.mark.real, pytest.mark.slow])])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    receivers = {domain: ScriptedMx(delay=0.004) for domain in DOMAINS}
    counts = {"ingest": 1, "router": 1, "sender": 2}
    with ExitStack() as stack:
        town = stack.enter_context(scripted_town(receivers))
        broker = stack.enter_context(kafka_broker(tmp_path / "kafka")) if request.param == "kafka" else None
        more = {**SETTINGS, **town.settings}
        running = stack.enter_context(
            fleet(tmp_path / "fleet", counts=counts, more=more, environments=LANES, broker=broker)
        )
        yield World(running, town)


def test_sources_come_drain_and_go_under_load_and_every_mail_arrives_once(world: World) -> None:
    """Lanes become other sources' and other senders'; nothing is lost, nothing comes twice, and every mail comes from an
    address that its source had."""
    accepted: list[str] = []
    waiting = world.hand_in(0, 20)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            accepted.extend(world.hand_in(1000 + len(accepted), 20))

    world.write(source("ip-1", 0))
    loading = threading.Thread(target=load)
    loading.start()
    try:
        world.goes_by("ip-1")
        world.write(source("ip-2", 1), source("ip-1", 0, state=DRAINING))
        world.goes_by("ip-2")
        world.write(None, source("ip-3", 0), source("ip-2", 1, state=QUARANTINED, reason="listed"))
        world.goes_by("ip-3")
        world.write(source("ip-3", 2))
        world.goes_by("ip-3")
        # Lane 2 is the other sender's from here on, whoever had it; lane 0 has nobody meanwhile.
        assert world.fleet.stop_one("sender-0") == 0
        world.goes_by("ip-3")
        world.fleet.start_one("sender-0")
        # The lane of a source in quarantine is given to another one.
        world.write(source("ip-1", 1), source("ip-3", 2, state=DRAINING))
        world.goes_by("ip-1")
        world.fleet.wait_ready("sender-0")
    finally:
        stop.set()
        loading.join(60)
    everybody = {*waiting, *accepted}
    until(lambda: set(world.arrived()) >= everybody, 60, world.fleet.logs)
    assert len(everybody) == len(waiting) + len(accepted) > 100
    assert world.arrived() == Counter(everybody)
    assert set(world.hosts()) <= set(ADDRESSES.values())
    kinds = Counter(event.kind for event in world.fleet.events())
    assert kinds["in_doubt"] == kinds["bounced"] == kinds["expired"] == 0


def test_mail_waits_for_a_source_and_why_says_who_closed_it(world: World) -> None:
    world.set("ip-1", "0")
    world.told("source", "drain", "ip-1", "--reason", "new network", "--author", "ann")
    (recipient,) = world.hand_in(0, 1)
    expected = "pool default has no source that takes mail: ip-1 is draining: new network (ann)"

    def said() -> bool:
        answer = json.loads(world.told("why", recipient, "--json"))
        return bool(answer["reasons"]) and answer["reasons"][0]["text"] == expected

    until(said, 30, world.fleet.logs)
    shown = json.loads(world.told("sources", "--json"))
    assert (shown["name"], shown["state"], shown["by"]) == ("ip-1", "draining", "ann")
    world.told("source", "remove", "ip-1")
    world.set("ip-2", "1")
    until(lambda: world.arrived()[recipient] == 1, 30, world.fleet.logs)


def test_a_source_that_takes_mail_is_not_removed_by_mistake(world: World) -> None:
    world.set("ip-1", "0")
    with pytest.raises(AssertionError, match="drain ip-1"):
        world.told("source", "remove", "ip-1")
    with pytest.raises(AssertionError, match="there is no source 'ip-9'"):
        world.told("source", "drain", "ip-9")
    assert wire.ACTIVE in world.told("sources")
