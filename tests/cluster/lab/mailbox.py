"""A mailbox server as many companies run one: Postfix takes the mail, Dovecot keeps it, on a machine of its own."""

from __future__ import annotations

import email
import email.message
from dataclasses import dataclass
from pathlib import Path

from cluster.lab.daemons import start
from cluster.lab.lab import Lab
from cluster.lab.places import HOME
from support import dovecot, mailboxes, postfix
from support.needs import program

ADDRESS = "10.88.15.1"
DOMAIN = "mailbox.test"
HOST = f"mx.{DOMAIN}"
TO_DOVECOT = """\
inet_interfaces = all
smtpd_peername_lookup = no
virtual_transport = lmtp:unix:{socket}
smtpd_recipient_restrictions = permit_auth_destination, reject
"""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A running one; every address at its domain exists."""

    directory: Path

    def messages(self) -> list[email.message.Message]:
        """All mails in all inboxes."""
        files = mailboxes.maildir_files(*(self.directory / "dovecot" / "all").glob("*"))
        return [email.message_from_bytes(file.read_bytes()) for file in files]

    @staticmethod
    def zones() -> dict[str, list[str]]:
        """The records that lead to it."""
        return {DOMAIN: [f"MX 10 {HOST}."], HOST: [f"A {ADDRESS}"]}


def build(lab: Lab) -> Mailbox:
    """Start it on the lab's wire."""
    directory, space = HOME / "mailbox", lab.join("mailbox", ADDRESS)
    keeper = dovecot.Dovecot(ADDRESS, 24, 143, directory / "dovecot")
    taker = postfix.Postfix(ADDRESS, 25, directory / "postfix")
    for part in (keeper.directory, taker.directory):
        part.mkdir(parents=True)
    settings = dovecot.configure(keeper)
    start("dovecot", space.inside(str(program("dovecot")), "-F", "-c", str(settings)), directory)
    settings = postfix.configure(taker, HOST, True, "")
    with (settings / "main.cf").open("a") as main:
        main.write(TO_DOVECOT.format(socket=keeper.socket))
    with (settings / "master.cf").open("a") as services:
        services.write("lmtp unix - - n - - lmtp\n")
    start("postfix", space.inside(str(program("postfix")), "-c", str(settings), "start-fg"), directory)
    space.await_answer(ADDRESS, 25)
    return Mailbox(directory)
