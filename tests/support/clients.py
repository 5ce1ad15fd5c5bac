"""Clients that people use: each hands in one message by STARTTLS and AUTH, or, smtp-source, on the trusted port."""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import processes
from support.needs import NODE_MODULES, program


@dataclass(frozen=True, slots=True)
class Door:
    """Where and as whom to hand in."""

    port: int
    trusted_port: int
    user: str
    password: str
    certificate: Path
    host: str = "127.0.0.1"


def by_smtplib(door: Door, reverse_path: str, recipients: Sequence[str], content: bytes, directory: Path) -> None:
    """Python's own."""
    del directory
    with smtplib.SMTP(door.host, door.port, timeout=60) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(door.certificate)))
        client.login(door.user, door.password)
        refused = client.sendmail(reverse_path, list(recipients), content)
    assert not refused


def by_swaks(door: Door, reverse_path: str, recipients: Sequence[str], content: bytes, directory: Path) -> None:
    """The postmaster's test tool; it ends the last line itself."""
    file = directory / "swaks.eml"
    file.write_bytes(content.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    processes.run([
        str(program("swaks")), "--server", door.host, "--port", str(door.port), "--tls", "--auth", "PLAIN",
        "--auth-user", door.user, "--auth-password", door.password, "--from", reverse_path,
        "--to", ",".join(recipients), "--data", f"@{file}", "--helo", "client.example",
    ])  # fmt: skip


def by_curl(door: Door, reverse_path: str, recipients: Sequence[str], content: bytes, directory: Path) -> None:
    """curl with a file."""
    file = directory / "curl.eml"
    file.write_bytes(content)
    to = [word for recipient in recipients for word in ("--mail-rcpt", recipient)]
    processes.run([
        str(program("curl")), "--silent", "--show-error", "--url", f"smtp://{door.host}:{door.port}/client.example",
        "--ssl-reqd", "--cacert", str(door.certificate), "--user", f"{door.user}:{door.password}",
        "--mail-from", reverse_path, *to, "--upload-file", str(file),
    ])  # fmt: skip


NODEMAILER = """
const options = JSON.parse(process.argv[1]);
const transport = require("nodemailer").createTransport(options.transport);
transport.sendMail({ envelope: options.envelope, raw: require("fs").readFileSync(options.file) })
  .then((done) => { if (done.rejected.length) throw new Error(JSON.stringify(done)); transport.close(); })
  .catch((error) => { console.error(error); process.exit(1); });
"""


def by_nodemailer(door: Door, reverse_path: str, recipients: Sequence[str], content: bytes, directory: Path) -> None:
    """The usual library of JavaScript."""
    file = directory / "nodemailer.eml"
    file.write_bytes(content)
    options = {
        "transport": {"host": door.host, "port": door.port, "requireTLS": True, "tls": {"rejectUnauthorized": False},
                      "auth": {"user": door.user, "pass": door.password}},
        "envelope": {"from": reverse_path, "to": list(recipients)},
        "file": str(file),
    }  # fmt: skip
    processes.run(["node", "-e", NODEMAILER, json.dumps(options)], env=node_environment())


def node_environment() -> dict[str, str]:
    """The environment in which node finds the modules that tests use."""
    import os

    return {**os.environ, "NODE_PATH": str(NODE_MODULES)}


CLIENTS = {"smtplib": by_smtplib, "swaks": by_swaks, "curl": by_curl, "nodemailer": by_nodemailer}


def by_smtp_source(door: Door, reverse_path: str, recipient: str, count: int, size: int) -> None:
    """Postfix's generator: `count` messages of its own making to one recipient, on five connections."""
    processes.run([
        str(program("smtp-source")), "-f", reverse_path, "-t", recipient, "-m", str(count), "-s", "5", "-l", str(size),
        f"inet:{door.host}:{door.trusted_port}",
    ])  # fmt: skip
