"""A running Mailfleet with mail of every kind, for Prometheus to look at: taken, put off, refused, blocked, held, rejected."""

from __future__ import annotations

import contextlib
import itertools
import smtplib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailfleet_ingest.decisions.credentials import Credential
from mailfleet_ingest.shell import credential_file
from support import addresses, certificates, scripted_town, toml
from support.mailfleet import Fleet, fleet
from support.prometheus import Target
from support.scripted_mx import ScriptedMx

NAMESPACE = "mail"
TENANTS = ("shop", "news", "acme")
BLOCK = b"550 5.7.1 [192.0.2.1] Message blocked: your IP address is on our block list, see https://help.test/block"
LIMITED = "limited.test"
"""Where our own limit is far below what comes: mail is ready, and waits."""
FLOOD = 150

POLICY = f"""\
version: 1
warmup:
- name: geometric-1.4
  sources: [ip-3]
limits:
- name: tight
  per: [site]
  cases:
  - if: {{site: [mx.{LIMITED}]}}
    message_rate: 1/s
    burst: 2
"""


def every(period: int, *said: bytes) -> Any:
    """A line of a script: `said` for that many of each `period` commands, else the usual."""
    numbers = itertools.count()

    def line(_: bytes) -> bytes:
        number = next(numbers) % period
        return said[number] if number < len(said) else b"250 2.1.5 Ok"

    return line


def receivers() -> dict[str, ScriptedMx]:
    """By domain: what they do to us."""
    return {
        "good.test": ScriptedMx(),
        "calm.test": ScriptedMx(delay=0.02),
        "busy.test": ScriptedMx({"RCPT": every(3, b"451 4.7.1 Try again later", b"452 4.2.2 Mailbox full")}),
        "strict.test": ScriptedMx({"RCPT": every(4, b"550 5.1.1 User unknown")}),
        "blocking.test": ScriptedMx({"MAIL": BLOCK}),
        LIMITED: ScriptedMx(),
    }


@dataclass
class Watched:
    """What runs."""

    fleet: Fleet
    ports: dict[str, int]
    """Of the listeners of tenants, and of `submission`."""

    def targets(self) -> list[Target]:
        """All `/metrics`, with the labels that the chart's monitors give."""
        return [
            Target(f"127.0.0.1:{port}", {"namespace": NAMESPACE, "component": name.partition("-")[0], "pod": name})
            for name, port in self.fleet.http.items()
            if name != "log"
        ]

    def hand_in(self, tenant: str, domain: str, number: int) -> None:
        """One mail."""
        with smtplib.SMTP("127.0.0.1", self.ports[tenant], timeout=30) as client:
            content = f"Subject: {number}\r\n\r\nHello.\r\n"
            client.sendmail(f"orders@{tenant}.test", [f"user{number}@{domain}"], content)

    def flood(self) -> None:
        """More at once for the limited domain than it may have in minutes, of two tenants."""
        for tenant in TENANTS[:2]:
            with smtplib.SMTP("127.0.0.1", self.ports[tenant], timeout=60) as client:
                for number in range(FLOOD):
                    to = f"user{number}@{LIMITED}"
                    client.sendmail(f"orders@{tenant}.test", [to], "Subject: many\r\n\r\nHello.\r\n")

    def be_refused(self) -> None:
        """A client that does what clients do wrong."""
        with contextlib.suppress(smtplib.SMTPException), smtplib.SMTP("127.0.0.1", self.ports["shop"]) as client:
            client.sendmail("orders@shop.test", ["not an address"], "x")
        with contextlib.suppress(smtplib.SMTPException), smtplib.SMTP("127.0.0.1", self.ports["submission"]) as client:
            client.starttls()
            client.login("shop", "wrong")

    @contextlib.contextmanager
    def load(self, per_second: float) -> Iterator[None]:
        """So much mail, all the time, each tenant to each domain in turn."""
        over = threading.Event()

        def run() -> None:
            turns = itertools.cycle(itertools.product(receivers(), TENANTS))
            for number, (domain, tenant) in enumerate(turns):
                if over.wait(1 / per_second):
                    return
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    self.hand_in(tenant, domain, number)
                    if number % 40 == 0:
                        self.be_refused()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)


@contextlib.contextmanager
def watched(directory: Path) -> Iterator[Watched]:
    """Start receivers and a fleet whose traffic policy limits one domain and warms up one source."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = {name: addresses.free_port() for name in (*TENANTS, "submission")}
    made = certificates.make(directory / "tls", "ingest.mailfleet.test")
    with scripted_town.scripted_town(receivers()) as town:
        (directory / "fleet").mkdir(exist_ok=True)
        credential = Credential(name="shop", tenant="shop", hash="", domains=("shop.test",))
        credential_file.add(directory / "fleet" / "credentials.toml", credential, "right")
        (directory / "fleet" / "policy.yaml").write_text(POLICY)
        more = toml.merged(town.settings, _settings(ports, made))
        with fleet(directory / "fleet", counts={"ingest": 1, "router": 2, "sender": 2}, more=more) as running:
            yield Watched(running, ports)


def _settings(ports: dict[str, int], certificate: certificates.Certificate) -> dict[str, Any]:
    listeners = [
        {"name": tenant, "kind": "trusted", "port": ports[tenant], "networks": ["127.0.0.0/8"], "tenant": tenant,
         "stream": "bulk" if tenant == "news" else "transactional"}
        for tenant in TENANTS
    ]  # fmt: skip
    submission = {
        "name": "submission", "kind": "submission", "port": ports["submission"],
        "certificate_file": str(certificate.certificate), "key_file": str(certificate.key),
    }  # fmt: skip
    sources = [{"name": f"ip-{number}", "ehlo_name": f"ip-{number}.mailfleet.test", "lanes": 1} for number in (1, 2, 3)]
    streams = [
        {"name": name, "retry_seconds": [2.0, 5.0, 10.0], "expire_seconds": 600.0} for name in ("transactional", "bulk")
    ]
    members = [{"source": name, "weight": weight} for name, weight in (("ip-1", 2), ("ip-2", 1), ("ip-3", 1))]
    pool = {"name": "default", "sources": members}
    return {
        "bus": {"lanes": 3}, "ingest": {"listeners": [*listeners, submission]}, "source": sources, "stream": streams,
        "pool": [pool],
    }  # fmt: skip


def until(prometheus_up: Any, count: int, seconds: float = 30.0) -> None:
    """Return when so many targets answer."""
    deadline = time.monotonic() + seconds
    while prometheus_up() < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"only {prometheus_up()} of {count} targets answer")
        time.sleep(0.2)
