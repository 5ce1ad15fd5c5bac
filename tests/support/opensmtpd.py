"""A private OpenSMTPD, run from its unpacked package, that accepts mail for every domain and keeps it in Maildirs.

Its paths are compiled in, so it gets a mount namespace of its own in which they lead to the private directory.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses, certificates, mailboxes
from support.mailboxes import Stored
from support.needs import CACHE, OPENSMTPD, program
from support.ownership import give_to
from support.processes import Process

CONFIGURATION = """\
{pki}
table users {{ "vmail" = "{uid}:{gid}:{directory}/all" }}
table everybody {{ "@" = "vmail" }}
smtp max-message-size "60M"
queue ttl 1h
listen on {address} port {port} hostname {name} {tls}
action "keep" maildir "{directory}/all/%{{rcpt}}" virtual <everybody> userbase <users>
match from any for any action "keep"
"""
ENTER = """\
mount --make-rprivate /
mount --bind {directory}/spool /var/spool
mount --bind {directory}/run /run
mount --bind {directory}/lib /var/lib
mount --bind {unpacked}/usr/libexec /usr/libexec
exec {program} -d -f {directory}/smtpd.conf
"""


@dataclass(frozen=True, slots=True)
class OpenSmtpd:
    """A running OpenSMTPD."""

    address: str
    port: int
    directory: Path

    def messages(self) -> list[Stored]:
        """All it delivered."""
        boxes = sorted((self.directory / "all").glob("*"))
        return [self._stored(box.name, file.read_bytes()) for box in boxes for file in mailboxes.maildir_files(box)]

    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "output").read_text(errors="replace")

    @staticmethod
    def _stored(recipient: str, content: bytes) -> Stored:
        return Stored(recipient, mailboxes.header(content, "Return-Path").strip("<>"), content)


@contextmanager
def opensmtpd(
    directory: Path, *, name: str = "opensmtpd.example", port: int = 25, tls: bool = False
) -> Iterator[OpenSmtpd]:
    """Start one with its files in `directory`, on a loopback address of its own; stop it at the end.

    With `tls` it offers STARTTLS; Debian 12's build then fails every handshake (its key lies in another process, which
    OpenSSL 3 does not find): a real receiver for the fall-back to clear text.
    """
    server = OpenSmtpd(addresses.loopback(), port, directory)
    script = _configure(server, name, tls)
    process = Process("opensmtpd", [str(program("unshare")), "-m", "sh", "-ec", script], directory / "output")
    try:
        process.wait_until_it_answers(server.address, port)
        yield server
    finally:
        process.stop(5)
        process.kill()


def _configure(server: OpenSmtpd, name: str, tls: bool) -> str:
    directory, owner = server.directory, pwd.getpwnam("vmail")
    for part in ("spool/smtpd", "run", "lib/opensmtpd/empty", "all"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "spool/smtpd").chmod(0o711)
    Path("/usr/libexec").mkdir(exist_ok=True)
    give_to(directory / "all", "vmail")
    pki = ""
    if tls:
        made = certificates.make(directory / "tls", name, server.address)
        pki = f'pki mail cert "{made.certificate}"\npki mail key "{made.key}"'
    (directory / "smtpd.conf").write_text(CONFIGURATION.format(
        pki=pki, uid=owner.pw_uid, gid=owner.pw_gid, directory=directory, address=server.address, port=server.port,
        name=name, tls="tls pki mail" if tls else "",
    ))  # fmt: skip
    return ENTER.format(directory=directory, unpacked=CACHE / "opensmtpd", program=OPENSMTPD)
