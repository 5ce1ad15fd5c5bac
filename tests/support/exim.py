"""A private Exim, run from its unpacked package, that accepts mail for every domain and keeps it in a Maildir.

It runs as its own user from a copy in the private directory: it starts itself anew for each delivery.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses, certificates, mailboxes
from support.mailboxes import Stored
from support.needs import EXIM
from support.ownership import give_to
from support.processes import Process

CONFIGURATION = """\
primary_hostname = {name}
spool_directory = {directory}/spool
log_file_path = {directory}/exim-%s.log
pid_file_path = {directory}/exim.pid
exim_path = {program}
local_interfaces = <; {address}.{port}
hostlist all_hosts = *
acl_smtp_rcpt = accept_all
acl_smtp_data = accept_all
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
host_lookup =
rfc1413_hosts =
keep_environment =
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 10000
queue_run_max = 5
message_size_limit = 60M
never_users =
deliver_drop_privilege
{tls}

begin acl
accept_all:
  accept

begin routers
everything:
  driver = accept
  transport = keep

begin transports
keep:
  driver = appendfile
  directory = {directory}/all
  maildir_format
  envelope_to_add
  return_path_add
  delivery_date_add
  mode = 0600

begin retry
* * F,1h,1m
"""
TLS = """\
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
"""


@dataclass(frozen=True, slots=True)
class Exim:
    """A running Exim."""

    address: str
    port: int
    directory: Path

    def messages(self) -> list[Stored]:
        """All it delivered."""
        return [self._stored(file.read_bytes()) for file in mailboxes.maildir_files(self.directory / "all")]

    def log(self) -> str:
        """Its logs."""
        return "".join(file.read_text(errors="replace") for file in sorted(self.directory.glob("exim-*.log")))

    @staticmethod
    def _stored(content: bytes) -> Stored:
        reverse_path = mailboxes.header(content, "Return-path").strip("<>")
        return Stored(mailboxes.header(content, "Envelope-to"), reverse_path, content)


@contextmanager
def exim(directory: Path, *, name: str = "exim.example", port: int = 25, tls: bool = True) -> Iterator[Exim]:
    """Start one with its files in `directory`, on a loopback address of its own; stop it at the end."""
    server = Exim(addresses.loopback(), port, directory)
    configuration = _configure(server, name, tls)
    process = Process(
        "exim", [str(directory / "exim4"), "-C", str(configuration), "-bdf", "-q1m"], directory / "output"
    )
    try:
        process.wait_until_it_answers(server.address, port)
        yield server
    finally:
        process.stop(5)
        process.kill()


def _configure(server: Exim, name: str, tls: bool) -> Path:
    directory = server.directory
    for path in (directory, directory / "spool", directory / "all"):
        path.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXIM, directory / "exim4")
    for path in (directory, directory / "spool", directory / "all"):
        give_to(path, "Debian-exim")
    lines = "tls_advertise_hosts ="
    if tls:
        made = certificates.make(directory / "tls", name, server.address)
        give_to(made.key, "Debian-exim")
        lines = TLS.format(certificate=made.certificate, key=made.key)
    configuration = directory / "exim.conf"
    configuration.write_text(CONFIGURATION.format(
        name=name, directory=directory, program=directory / "exim4", address=server.address, port=server.port, tls=lines
    ))  # fmt: skip
    return configuration
