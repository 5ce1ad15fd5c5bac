"""The servers that the other tests deliver to: each takes a message and gives it back as it was."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support import mailboxes, needs
from support.dovecot import dovecot
from support.exim import exim
from support.knot import knot
from support.opensmtpd import opensmtpd
from support.ownership import public_directory
from support.postfix import postfix

pytestmark = pytest.mark.real
MESSAGE = b"From: a@sender.example\r\nMessage-ID: <1@x>\r\nDate: Sat, 21 Nov 2026 23:00:00 +0000\r\n\r\none\r\n.two\r\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a server's files lie."""
    with public_directory("receiver") as made:
        yield made


@pytest.mark.parametrize(("name", "start"), [("postfix", postfix), ("exim", exim), ("opensmtpd", opensmtpd)])
def test_a_receiver_gives_back_what_it_was_sent(
    name: str, start: Callable[[Path], AbstractContextManager[Any]], directory: Path
) -> None:
    needs.need("root", name)
    with start(directory) as server:
        with smtplib.SMTP(server.address, server.port) as client:
            client.sendmail("a@sender.example", ["b@one.example", "c@two.example"], MESSAGE)
        stored = mailboxes.wait_for(server.messages, 2)
    assert {message.recipient for message in stored} == {"b@one.example", "c@two.example"}
    assert {message.reverse_path for message in stored} == {"a@sender.example"}
    assert {message.bare for message in stored} == {MESSAGE}


def test_dovecot_gives_back_by_imap_what_came_by_lmtp(directory: Path) -> None:
    needs.need("root", "dovecot")
    with dovecot(directory) as server:
        for where in ((server.address, server.lmtp_port), (str(server.socket), 0)):
            with smtplib.LMTP(*where) as client:
                client.sendmail("a@sender.example", ["b@one.example"], MESSAGE)
        stored = server.messages("b@one.example")
    assert [message.bare for message in stored] == [MESSAGE, MESSAGE]


def test_knot_tells_servfail_from_nxdomain_and_null_mx(tmp_path: Path) -> None:
    needs.need("knotd")
    import dns.message
    import dns.query
    import dns.rcode

    zones = {"null.example": ["MX 0 ."], "bücher.example": ["MX 10 mx.example."]}
    with knot(tmp_path, zones, servfail=["broken.example"]) as server:
        codes = {}
        for name in ("null.example", "xn--bcher-kva.example", "broken.example", "absent.example"):
            answer = dns.query.udp(dns.message.make_query(name, "MX"), server.address, port=server.port, timeout=5)
            codes[name] = (dns.rcode.to_text(answer.rcode()), [str(item) for items in answer.answer for item in items])
    assert codes == {
        "null.example": ("NOERROR", ["0 ."]),
        "xn--bcher-kva.example": ("NOERROR", ["10 mx.example."]),
        "broken.example": ("SERVFAIL", []),
        "absent.example": ("NXDOMAIN", []),
    }
