"""A private Postfix that accepts mail for every domain and keeps it in Maildirs."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses, certificates, mailboxes, processes
from support.mailboxes import Stored
from support.needs import program
from support.ownership import give_to

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
myhostname = {name}
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {directory}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
mailbox_size_limit = 0
message_size_limit = 60000000
smtputf8_enable = yes
smtpd_recipient_restrictions = {checks} permit_mynetworks, reject
smtpd_peername_lookup = {lookup}
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
local_transport = error:no
alias_maps =
alias_database =
{tls}
"""
TLS = """\
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_received_header = yes
"""
SERVICES = """\
{address}:{port} inet n - n - 100 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix."""

    address: str
    port: int
    directory: Path

    def messages(self) -> list[Stored]:
        """All it delivered."""
        return [self._stored(file.read_bytes()) for file in mailboxes.maildir_files(self.directory / "all")]

    def log(self) -> str:
        """Its mail log."""
        return (self.directory / "maillog").read_text(errors="replace")

    @staticmethod
    def _stored(content: bytes) -> Stored:
        reverse_path = mailboxes.header(content, "Return-Path").strip("<>")
        return Stored(mailboxes.header(content, "X-Original-To"), reverse_path, content)


@contextmanager
def postfix(
    directory: Path, *, name: str = "postfix.example", port: int = 25, tls: bool = True, checks: str = "",
    address: str = "",
) -> Iterator[Postfix]:  # fmt: skip
    """Start one with its files in `directory`, on `address` or a loopback address of its own; stop it at the end.

    `checks` come before its other restrictions on recipients, each with a comma after it.
    """
    server = Postfix(address or addresses.loopback(), port, directory)
    configuration = configure(server, name, tls, checks)
    processes.run([str(program("postfix")), "-c", str(configuration), "start"])
    try:
        addresses.wait_until_it_answers(server.address, port)
        yield server
    finally:
        processes.run([str(program("postfix")), "-c", str(configuration), "stop"])


def configure(server: Postfix, name: str, tls: bool, checks: str) -> Path:
    """Write what it reads, and return its directory of settings."""
    directory, owner = server.directory, pwd.getpwnam("vmail")
    configuration, data = directory / "etc", directory / "data"
    for path in (configuration, directory / "queue", data, directory / "all"):
        path.mkdir(parents=True, exist_ok=True)
    give_to(data, "postfix")
    give_to(directory / "all", "vmail")
    lines = ""
    if tls:
        made = certificates.make(configuration, name, server.address)
        lines = TLS.format(certificate=made.certificate, key=made.key)
    (configuration / "main.cf").write_text(MAIN.format(
        directory=directory, name=name, address=server.address, uid=owner.pw_uid, gid=owner.pw_gid, tls=lines, checks=checks,
        # Elsewhere than on loopback there is no DNS that knows the clients.
        lookup="yes" if server.address.startswith("127.") else "no",
    ))  # fmt: skip
    (configuration / "master.cf").write_text(SERVICES.format(address=server.address, port=server.port))
    return configuration
