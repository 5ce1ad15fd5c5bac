"""A small world for mail: real receivers, the DNS that leads to them, and the settings that make a fleet use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import addresses, certificates
from support.clients import Door
from support.dovecot import Dovecot, dovecot
from support.exim import Exim, exim
from support.knot import Knot, knot
from support.mailboxes import Stored
from support.opensmtpd import OpenSmtpd, opensmtpd
from support.postfix import Postfix, postfix

REFUSALS = """\
/^nobody@/ 550 5.1.1 There is no such person here
/^full@/ 452 4.2.2 The mailbox is full
"""
USER, PASSWORD = "shop", "correct horse battery"
IDN = "bücher.test"


@dataclass(frozen=True, slots=True)
class Town:
    """Everything outside of Mailfleet."""

    postfix: Postfix
    exim: Exim
    opensmtpd: OpenSmtpd
    dovecot: Dovecot
    dns: Knot

    def received(self, recipient: str, header: str = "") -> list[Stored]:
        """What lies in the mailbox of `recipient` and has the text `header` in it."""
        domain = recipient.rpartition("@")[2]
        if domain.startswith("lmtp"):
            found = self.dovecot.messages(recipient)
        else:
            server = {"exim.test": self.exim, "opensmtpd.test": self.opensmtpd}.get(domain, self.postfix)
            found = [message for message in server.messages() if message.recipient == recipient]
        return [message for message in found if header.encode() in message.content]

    def logs(self) -> str:
        """The ends of the receivers' logs."""
        servers = {"postfix": self.postfix, "exim": self.exim, "opensmtpd": self.opensmtpd, "dovecot": self.dovecot}
        return "\n".join(f"--- {name}\n{server.log()[-700:]}" for name, server in servers.items())


@contextmanager
def town(directory: Path) -> Iterator[Town]:
    """Start all of it."""
    directory.mkdir(parents=True, exist_ok=True)
    refusals = directory / "refusals"
    refusals.write_text(REFUSALS)
    checks = f"check_recipient_access regexp:{refusals},"
    with ExitStack() as stack:
        mailbox = stack.enter_context(dovecot(directory / "dovecot"))
        receivers = (
            stack.enter_context(postfix(directory / "postfix", name="mx.postfix.test", checks=checks)),
            stack.enter_context(exim(directory / "exim", name="mx.exim.test")),
            stack.enter_context(opensmtpd(directory / "opensmtpd", name="mx.opensmtpd.test")),
        )
        zones = _zones(*(receiver.address for receiver in receivers))
        names = stack.enter_context(knot(directory / "dns", zones, servfail=["servfail.test"]))
        yield Town(*receivers, mailbox, names)


def _zones(postfix: str, exim: str, opensmtpd: str) -> dict[str, list[str]]:
    nobody = addresses.loopback()
    return {
        "mx.postfix.test": [f"A {postfix}"],
        "postfix.test": ["MX 10 mx.postfix.test."],
        "reports.test": ["MX 10 mx.postfix.test."],
        "mx.exim.test": [f"A {exim}"],
        "exim.test": ["MX 10 mx.exim.test."],
        "mx.opensmtpd.test": [f"A {opensmtpd}"],
        "opensmtpd.test": ["MX 10 mx.opensmtpd.test."],
        "implicit.test": [f"A {postfix}"],
        "alias.test": ["CNAME postfix.test."],
        IDN: ["MX 10 mx.postfix.test."],
        "null.test": ["MX 0 ."],
        "nobody.test": [f"A {nobody}"],
        "fallback.test": ["MX 10 nobody.test.", "MX 20 mx.postfix.test."],
        "no-address.test": ["MX 10 absent.postfix.test."],
    }


def settings(town: Town, directory: Path, *, trusted: int, short: int, submission: int) -> dict[str, Any]:
    """The settings of a fleet that delivers to the town; the ports are of its three listeners."""
    directory.mkdir(parents=True, exist_ok=True)
    made = certificates.make(directory, "submission.mailfleet.test", "127.0.0.1")
    inside = {"address": "127.0.0.1", "networks": ["127.0.0.0/8"], "kind": "trusted"}
    files = {"certificate_file": str(made.certificate), "key_file": str(made.key)}
    lmtp = {"kind": "lmtp", "tls": "off"}
    tcp = {"hosts": [town.dovecot.address], "port": town.dovecot.lmtp_port, **lmtp}
    return {
        "dns": {"nameservers": [town.dns.nameserver], "timeout_seconds": 3.0},
        "ingest": {"listeners": [
            {"name": "trusted", "port": trusted, **inside},
            {"name": "short", "port": short, "stream": "short", **inside},
            {"name": "submission", "kind": "submission", "address": "127.0.0.1", "port": submission, **files},
        ]},
        "route": [
            {"name": "tcp", "domains": ["lmtp-tcp.test"], **tcp},
            {"name": "unix", "domains": ["lmtp-unix.test"], "hosts": [f"unix:{town.dovecot.socket}"], **lmtp},
        ],
        "stream": [
            {"name": "transactional", "retry_seconds": [1.0, 2.0, 3.0], "expire_seconds": 600.0},
            {"name": "short", "retry_seconds": [2.0], "expire_seconds": 35.0, "delay_dsn_seconds": 2.0},
        ],
    }  # fmt: skip


def door(directory: Path, *, trusted: int, submission: int) -> Door:
    """How clients get in, once `settings` were made with the same directory."""
    return Door(submission, trusted, USER, PASSWORD, directory / "submission.mailfleet.test.pem")


def until(what: Callable[[], object], seconds: float = 30.0, why: Callable[[], str] = lambda: "") -> None:
    """Wait until `what()` is true. Raises AssertionError with `why()`."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s\n{why()}"
        time.sleep(0.1)
