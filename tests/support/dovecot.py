"""A private Dovecot: LMTP on TCP and a Unix socket, IMAP to read it back, a mailbox for every address."""

from __future__ import annotations

import imaplib
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses, mailboxes
from support.mailboxes import Stored
from support.needs import program
from support.ownership import give_to
from support.processes import Process

PASSWORD = "read-it-back"
CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
protocols = imap lmtp
listen = {address}
ssl = no
disable_plaintext_auth = no
auth_username_format = %Lu
auth_username_chars =
mail_location = maildir:{directory}/all/%u
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
first_valid_gid = 1
default_login_user = vmail
default_internal_user = vmail
default_internal_group = vmail
mail_max_userip_connections = 100
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/all/%u allow_all_users=yes
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
  unix_listener {directory}/lmtp.sock {{
    mode = 0666
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@dovecot.example
}}
"""


@dataclass(frozen=True, slots=True)
class Dovecot:
    """A running Dovecot."""

    address: str
    lmtp_port: int
    imap_port: int
    directory: Path

    @property
    def socket(self) -> Path:
        """Where LMTP listens on a Unix socket."""
        return self.directory / "lmtp.sock"

    def messages(self, user: str) -> list[Stored]:
        """What IMAP gives out of the inbox of `user` (an address)."""
        with imaplib.IMAP4(self.address, self.imap_port) as client:
            client.login(f'"{user}"', PASSWORD)
            client.select("INBOX", readonly=True)
            numbers = client.search(None, "ALL")[1][0].split()
            return [self._stored(user, client.fetch(number.decode(), "(BODY.PEEK[])")[1][0][1]) for number in numbers]  # type: ignore[index]

    def log(self) -> str:
        """Its log."""
        return (self.directory / "dovecot.log").read_text(errors="replace")

    @staticmethod
    def _stored(user: str, content: bytes) -> Stored:
        return Stored(user, mailboxes.header(content, "Return-Path").strip("<>"), content)


@contextmanager
def dovecot(directory: Path) -> Iterator[Dovecot]:
    """Start one with its files in `directory`, on a loopback address of its own; stop it at the end."""
    address = addresses.loopback()
    server = Dovecot(address, addresses.free_port(address), addresses.free_port(address), directory)
    configuration = configure(server)
    process = Process("dovecot", [str(program("dovecot")), "-F", "-c", str(configuration)], directory / "output")
    try:
        process.wait_until_it_answers(address, server.imap_port)
        process.wait_until_it_answers(address, server.lmtp_port)
        yield server
    finally:
        process.stop(5)
        process.kill()


def configure(server: Dovecot) -> Path:
    """Write what it reads, and return that file."""
    directory, owner = server.directory, pwd.getpwnam("vmail")
    for part in ("run", "state", "all"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    give_to(directory / "all", "vmail")
    configuration = directory / "dovecot.conf"
    configuration.write_text(CONFIGURATION.format(
        directory=directory, address=server.address, uid=owner.pw_uid, gid=owner.pw_gid, password=PASSWORD,
        imap_port=server.imap_port, lmtp_port=server.lmtp_port,
    ))  # fmt: skip
    return configuration
