"""`mailfleet run` as a user has it: first start, a mail from a real client, its story, and an end without a trace."""

from __future__ import annotations

import json
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfleet_cli import first_start, maildir
from support import addresses, mailboxes
from support.knot import knot
from support.needs import need
from support.ownership import public_directory
from support.postfix import postfix
from support.processes import Process

DEFAULT_PORTS = ("2587", "2465", "2525")
MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))


def within(seconds: float, look: Callable[[], object]) -> object:
    """What `look` sees once it is true; fails when that does not come."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)
    return seen


@dataclass
class Fleet:
    """A running `mailfleet run` with ports of its own."""

    settings: Path
    password: str
    ports: dict[str, int]
    environment: dict[str, str]
    process: Process

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAILFLEET, "--config", str(self.settings), *words],
            env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def lines(self, *words: str) -> list[dict]:
        done = self.command(*words)
        return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []

    def children(self) -> dict[int, str]:
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return {int(line.split()[0]): line for line in found.stdout.splitlines()}

    def child(self, module: str) -> int:
        return next((pid for pid, line in self.children().items() if module in line), 0)

    def wait_until_ready(self) -> None:
        within(60, lambda: "Mailfleet is ready" in self.process.tail(100_000) or not self.process.running)
        assert self.process.running, self.process.tail()

    def submit(self, recipient: str, subject: str) -> str:
        with smtplib.SMTP("127.0.0.1", self.ports["2587"], timeout=30) as client:
            client.starttls(context=ssl._create_unverified_context())  # the first start's is self-signed
            client.login(first_start.TEST_CREDENTIAL, self.password)
            client.mail("me@example.org")
            client.rcpt(recipient)
            code, text = client.data(f"Subject: {subject}\r\n\r\nHello.\r\n")
            assert code == 250, text
            return text.decode()

    def kept(self) -> list[str]:
        return [str(mail.message["Subject"]) for mail in maildir.stored(self.settings.parent / "inbox")]


def made(directory: Path) -> tuple[Path, str, dict[str, int]]:
    """A first start's files, with free ports."""
    settings = directory / "var" / "mailfleet.toml"
    password = first_start.make(settings, time.time())
    ports = {default: addresses.free_port() for default in DEFAULT_PORTS}
    text = settings.read_text()
    for default, port in ports.items():
        text = text.replace(default, str(port))
    settings.write_text(text)
    return settings, password, ports


@contextmanager
def running(where: Path, *options: str, more: str = "", **run: str) -> Iterator[Fleet]:
    """`mailfleet run` with `options`, on a first start's settings and `more` of them; `run` goes to [run]."""
    settings, password, ports = made(where)
    settings.write_text(settings.read_text() + more)
    environment = {
        "MAILFLEET_RUN__HTTP_PORT": "0",
        "MAILFLEET_RUN__SINK_LISTEN": f"127.0.0.1:{addresses.free_port()}",
        **{f"MAILFLEET_RUN__{key.upper()}": value for key, value in run.items()},
    }
    process = Process(
        "mailfleet", [MAILFLEET, "--config", str(settings), "run", *options], where / "output", environment
    )
    fleet = Fleet(settings, password, ports, environment, process)
    try:
        fleet.wait_until_ready()
        yield fleet
    finally:
        process.stop()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests that leave it running."""
    with running(tmp_path_factory.mktemp("run")) as fleet:
        yield fleet


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """One for a test that ends it."""
    with running(tmp_path) as fleet:
        yield fleet


def test_a_first_mail_goes_from_a_real_client_to_the_sink_and_its_story_is_told(fleet: Fleet) -> None:
    reply = fleet.submit("first@example.net", "first")
    within(30, lambda: "first" in fleet.kept())

    def kinds() -> list[str]:
        return [line["kind"] for line in fleet.lines("trace", "first@example.net", "--json")]

    within(30, lambda: "delivered" in kinds())
    told = kinds()
    assert told[0] == "accepted"
    assert told.index("attempted") < told.index("delivered")
    (message_id,) = {line["message_id"] for line in fleet.lines("trace", "first@example.net", "--json")}
    assert message_id in reply


def test_sigterm_ends_it_with_exit_code_0_and_no_child_is_left(own_fleet: Fleet) -> None:
    children = own_fleet.children()
    assert len(children) == 5, children
    assert own_fleet.process.stop() == 0, own_fleet.process.tail()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize(
    "module", ["mailfleet_ingest", "mailfleet_router", "mailfleet_sender", "mailfleet_core.bus.logd"]
)
def test_a_killed_child_is_started_again_and_mail_flows_on(fleet: Fleet, module: str) -> None:
    before = fleet.child(module)
    os.kill(before, 9)
    within(20, lambda: fleet.child(module) not in (0, before))

    def submitted() -> bool:
        try:
            return bool(fleet.submit("you@example.net", f"after {module}"))
        except (OSError, smtplib.SMTPException, AssertionError):
            return False

    within(40, submitted)
    within(60, lambda: f"after {module}" in fleet.kept())


def test_children_die_with_a_killed_supervisor(own_fleet: Fleet) -> None:
    children = own_fleet.children()
    os.kill(own_fleet.process.pid, 9)
    within(10, lambda: not [pid for pid in children if Path(f"/proc/{pid}/exe").exists()])


def test_a_second_run_in_the_same_directory_is_refused_with_the_first_ones_process_id(fleet: Fleet) -> None:
    second = fleet.command("run")
    assert second.returncode == 1
    assert f"process {fleet.process.pid}" in second.stderr


def test_send_prints_a_message_id_that_trace_knows(fleet: Fleet) -> None:
    (sent,) = fleet.lines("send", "--to", "you@example.net", "--subject", "by hand", "--json")
    within(30, lambda: "delivered" in [line["kind"] for line in fleet.lines("trace", sent["message_id"], "--json")])
    within(10, lambda: "by hand" in fleet.kept())


def test_send_waits_for_the_end_of_the_mail_and_says_which(fleet: Fleet) -> None:
    (sent,) = fleet.lines("send", "--to", "a@example.net", "--to", "b@example.com", "--wait", "30", "--json")
    assert sent["ended"] == ["delivered"]
    fleet.command("suspend", "--domain", "held.example", "--reason", "a test")
    done = fleet.command("send", "--to", "you@held.example", "--wait", "2")
    assert done.returncode == 1
    assert "has no end after 2 s" in done.stderr


def test_topics_are_listed_with_their_partitions(fleet: Fleet) -> None:
    listed = {line["name"]: line["partitions"] for line in fleet.lines("topics", "--json")}
    assert listed["mail.queue"] == listed["mail.result"] == 4
    assert listed["mail.control"] == 1


def test_what_the_runner_keeps_may_lie_elsewhere_than_the_settings(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(tmp_path, directory=str(state), http_address="0.0.0.0") as fleet:
        before = {path.name for path in fleet.settings.parent.iterdir()}
        fleet.submit("you@example.net", "elsewhere")
        within(30, lambda: maildir.stored(state / "inbox"))
        assert {"run.lock", "running.toml"} <= {path.name for path in state.iterdir()}
        assert before == {"mailfleet.toml", "credentials.toml", "certificate.pem", "key.pem", "log"}
        assert fleet.command("config", "check").returncode == 0


@pytest.mark.real
def test_with_deliver_mail_goes_to_the_mx_that_the_dns_names_and_not_to_the_sink(tmp_path: Path) -> None:
    need("root", "postfix", "knotd")
    with public_directory("mx") as directory, postfix(directory, name="mx.town.example") as receiver:
        zones = {"town.example": ["MX 10 mx.town.example."], "mx.town.example": [f"A {receiver.address}"]}
        with knot(tmp_path / "knot", zones) as names:
            inside = f'[dns]\nnameservers = ["{names.nameserver}"]\n[sender]\nallowed_inside = ["127.0.0.0/8"]\n'
            with running(tmp_path / "run", "--deliver", more=inside) as fleet:
                fleet.submit("you@town.example", "for real")
                (stored,) = mailboxes.wait_for(receiver.messages, 1)
                assert stored.parsed()["Subject"] == "for real"
                assert not [line for line in fleet.children().values() if "mailfleet_cli.sink" in line]


def test_a_suspended_site_waits_is_shown_with_its_reason_and_goes_on_when_resumed(fleet: Fleet) -> None:
    (sent,) = fleet.lines("send", "--to", "you@slow.example", "--json")
    site = within(
        30,
        lambda: [line.get("site") for line in fleet.lines("trace", sent["message_id"], "--json") if line.get("site")],
    )
    name = str(site[0])  # type: ignore[index]
    assert fleet.command("suspend", "site", name, "--reason", "they asked").returncode == 0
    fleet.submit("you@slow.example", "held back")
    within(
        30, lambda: [line for line in fleet.lines("queues", "--json") if line["waiting"] and "they asked" in str(line)]
    )
    assert "held back" not in fleet.kept()
    assert fleet.command("resume", "site", name).returncode == 0
    within(30, lambda: "held back" in fleet.kept())


def test_the_settings_of_the_first_start_pass_the_check_while_it_runs(fleet: Fleet) -> None:
    done = fleet.command("config", "check")
    assert done.returncode == 0, done.stdout


def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    settings, _, ports = made(tmp_path)
    with socket.create_server(("127.0.0.1", ports["2525"])):
        done = subprocess.run([MAILFLEET, "--config", str(settings), "run"], capture_output=True, text=True, timeout=30,
                              env={**os.environ, "MAILFLEET_RUN__HTTP_PORT": "0"})  # fmt: skip
    assert done.returncode == 1
    assert f"127.0.0.1:{ports['2525']}" in done.stderr
    assert "[[ingest.listeners]] number 3: port" in done.stderr
