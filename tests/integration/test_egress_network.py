"""Mail through an egress proxy in network namespaces: the fleet has no way to the world, the proxy has its addresses."""

from __future__ import annotations

import json
import re
import smtplib
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfleet_core.model.wire import Event
from support import addresses, needs, network, toml
from support.mailfleet import Fleet
from support.ownership import public_directory
from support.postfix import Postfix, postfix
from support.processes import Process
from support.town import until

pytestmark = [pytest.mark.real, pytest.mark.slow]

WORLD, NEAR = "198.51.100.100", "10.99.0.2"
HERE = ("198.51.100.11", "198.51.100.12", "198.51.100.13")
GONE = "198.51.100.14"
"""Listed at the proxy, and not on its machine."""
TENANTS = ("one", "two", "three", "four")
WAIT_SECONDS = 200.0


@dataclass
class Stage:
    """The fleet, the proxy and the receiver, each in a namespace of its own."""

    fleet: Fleet
    receiver: Postfix
    directory: Path
    space: str
    ports: dict[str, int]
    http: int
    proxy: Process | None = None

    def start_proxy(self) -> None:
        """Start it, or start it again."""
        command = [sys.executable, "-m", "mailfleet_egress", "--config", str(self.directory / "egress.toml"),
                   "--http", f"{NEAR}:{self.http}"]  # fmt: skip
        with network.inside(self.space):
            self.proxy = Process("egress", command, self.directory / "egress.log")
            self.proxy.wait_until_it_answers(NEAR, 1080, 60.0)

    def kill_proxy(self) -> None:
        """End it as a crash would."""
        assert self.proxy is not None
        self.proxy.kill()

    def submit(self, tenant: str, count: int, name: str) -> set[str]:
        """Mails of a tenant; their recipients."""
        recipients = {f"{name}-{tenant}-{number}@receiver.test" for number in range(count)}
        with smtplib.SMTP("127.0.0.1", self.ports[tenant], timeout=60) as client:
            for recipient in recipients:
                client.sendmail("a@example.com", [recipient], f"Subject: {name}\r\n\r\n{recipient}\r\n")
        return recipients

    def received(self) -> Counter[str]:
        """How often each recipient's mail lies in the receiver's mailbox."""
        return Counter(message.recipient for message in self.receiver.messages())

    def sources(self) -> Counter[str]:
        """By the receiver's log: addresses from which mail was taken."""
        return Counter(re.findall(r"client=unknown\[([\d.]+)\]", self.receiver.log()))

    def events(self, kind: str) -> list[Event]:
        """What the fleet told."""
        return [event for event in self.fleet.events() if event.kind == kind]

    def why(self) -> str:
        """For a test that fails."""
        return self.fleet.logs(1500) + (self.proxy.tail(1500) if self.proxy else "") + self.receiver.log()[-1500:]


def settings(ports: dict[str, int]) -> toml.Sections:
    """Of a fleet that reaches the world through the proxy only."""
    listener = {"kind": "trusted", "address": "127.0.0.1", "networks": ["127.0.0.0/8"]}
    proxy = f"socks5://sender@{NEAR}:1080"
    sources = {"here-1": HERE[0], "here-2": HERE[1], "here-3": HERE[2], "gone": GONE}
    return {
        "bus": {"lanes": 4},
        "ingest": {"listeners": [{"name": name, "tenant": name, "port": port, **listener} for name, port in ports.items()]},
        "sender": {"proxy_seconds": 3.0, "connect_seconds": 10.0, "allowed_inside": ["127.0.0.0/8"]},
        "source": [{"name": name, "address": address, "proxy": proxy} for name, address in sources.items()],
        "route": [{"name": "world", "domains": ["*"], "kind": "smart_host", "hosts": [WORLD], "tls": "off"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    needs.need("root", "ip", "postfix")
    directory = tmp_path_factory.mktemp("egress")
    with ExitStack() as stack:
        spaces = stack.enter_context(network.namespaces("fleet", "proxy", "world"))
        network.wire(spaces[0], ["10.99.0.1/30"], spaces[1], [f"{NEAR}/30"], "mfea")
        network.wire(spaces[1], [f"{address}/24" for address in HERE], spaces[2], [f"{WORLD}/24"], "mfeb")
        public = stack.enter_context(public_directory("egress"))
        with network.inside(spaces[2]):
            receiver = stack.enter_context(postfix(public, address=WORLD, tls=False, checks="permit,"))
        users = directory / "users"
        users.write_text("sender:secret\n")
        egress = {"address": NEAR, "addresses": [*HERE, GONE], "users_file": str(users)}
        (directory / "egress.toml").write_text(toml.dumps({"egress_proxy": egress}))
        stack.enter_context(network.inside(spaces[0]))
        ports = {tenant: addresses.free_port() for tenant in TENANTS}
        more = toml.merged(settings(ports), {"sender": {"proxy_users_file": str(users)}})
        running = Fleet(directory / "fleet", more=more)
        it = Stage(running, receiver, directory, spaces[1], ports, addresses.free_port())
        it.start_proxy()
        stack.callback(lambda: it.proxy and it.proxy.stop())
        stack.callback(running.stop)
        running.start()
        yield it


def test_mail_leaves_from_the_proxys_addresses_and_one_that_is_missing_costs_nobody_anything(stage: Stage) -> None:
    sent = set().union(*(stage.submit(tenant, 10, "plain") for tenant in TENANTS))
    until(lambda: stage.received().keys() >= sent, WAIT_SECONDS, stage.why)
    assert [count for recipient, count in stage.received().items() if recipient in sent and count != 1] == []
    assert set(stage.sources()) == set(HERE)
    assert [event for event in stage.events("held") if event.by == "egress" and GONE in event.text]
    assert not stage.events("bounced")
    assert not stage.events("deferred")


def test_a_missing_address_is_out_for_every_site_and_the_health_page_names_it(stage: Stage) -> None:
    until(lambda: [event for event in stage.events("shaping") if event.by == "unplumbed"], WAIT_SECONDS, stage.why)
    (event, *_) = [event for event in stage.events("shaping") if event.by == "unplumbed"]
    assert (event.source, event.site) == ("gone", "")
    with network.inside(stage.space), urllib.request.urlopen(f"http://{NEAR}:{stage.http}/sources", timeout=10) as page:
        told = json.load(page)["sources"]
    assert {address: entry["plumbed"] for address, entry in told.items()} == {**dict.fromkeys(HERE, True), GONE: False}


def test_a_proxy_that_is_killed_under_mail_loses_nothing_and_repeats_nothing_that_was_not_in_doubt(
    stage: Stage,
) -> None:
    sent: set[str] = set()
    for round_ in range(3):
        for tenant in TENANTS:
            sent |= stage.submit(tenant, 25, f"killed-{round_}")
        time.sleep(0.3)
        stage.kill_proxy()
        sent |= stage.submit("one", 10, f"while-{round_}")
        time.sleep(1.0)
        stage.start_proxy()
    until(lambda: stage.received().keys() >= sent, WAIT_SECONDS, stage.why)
    repeated = {recipient for recipient, count in stage.received().items() if recipient in sent and count > 1}
    # Only of a mail whose last dot was sent and not answered nobody can know whether it was taken.
    in_doubt = {
        address for event in stage.events("deferred") if event.phase == "dot" for _, address in event.recipients
    }
    assert repeated <= in_doubt
    assert not stage.events("bounced")
    assert not [event for event in stage.events("shaping") if "dead" in event.text]
    print(f"{len(sent)} mails, {len(repeated)} repeated, {len(in_doubt)} in doubt")
