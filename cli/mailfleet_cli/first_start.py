"""The first start: a directory with settings, a certificate and a credential, so that a mail can be sent at once."""

from __future__ import annotations

import socket
from pathlib import Path

from mailfleet_cli import certificate, credential, listening, output
from mailfleet_core.settings import SettingsFile
from mailfleet_ingest.decisions.credentials import Credential
from mailfleet_ingest.settings import IngestSettings

TEST_CREDENTIAL = "test"

SETTINGS = """\
# Mailfleet on one machine.  Every key, its default and its meaning: docs/settings.md.
# `mailfleet config check` tells whether this file is right.  Changes take effect with the next start.

[bus]
kind = "embedded"              # or "kafka", with bootstrap = "host:9092": nothing else changes
directory = "{directory}/log"

[run]
deliver = false                # true: deliver to the real MX hosts; false: all mail ends in the sink on this machine
# ingest_processes = 0         # 0: follows the cores
# sender_processes = 0

[ingest]
hostname = "{hostname}"
credentials_file = "{directory}/credentials.toml"

[router]
hostname = "{hostname}"        # in delivery reports

[[ingest.listeners]]
kind = "submission"            # STARTTLS, then a credential
address = "127.0.0.1"          # "0.0.0.0": for other machines too
port = 2587
certificate_file = "{directory}/certificate.pem"   # self-signed; put a real one here
key_file = "{directory}/key.pem"

[[ingest.listeners]]
kind = "implicit_tls"
address = "127.0.0.1"
port = 2465
certificate_file = "{directory}/certificate.pem"
key_file = "{directory}/key.pem"

[[ingest.listeners]]
kind = "trusted"               # no credential: for programs on this machine
address = "127.0.0.1"
port = 2525
networks = ["127.0.0.0/8", "::1/128"]

# What it looks like to send from addresses of your own:
# [[source]]
# name = "first"
# address = "192.0.2.1"
# ehlo_name = "mail.example.org"

# And to hand the mail of some domains to another server:
# [[route]]
# name = "office"
# domains = ["example.org", "*.example.org"]
# kind = "smart_host"
# hosts = ["mail.example.org"]
"""


def make(path: Path, now: float) -> str:
    """Make the settings file, its directory (ours alone), a certificate and a credential; the credential's password."""
    directory = path.absolute().parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    hostname = socket.getfqdn()
    certificate.write_self_signed(directory / "certificate.pem", directory / "key.pem", hostname, now)
    everything = Credential(name=TEST_CREDENTIAL, tenant="default", hash="", domains=("*",))
    password = credential.create(directory / "credentials.toml", everything)
    # The settings come last: they are what tells the next start that this one was complete.
    path.write_text(SETTINGS.format(directory=_toml(directory), hostname=_toml(hostname)), encoding="utf-8")
    return password


def announce(path: Path, password: str) -> None:
    """Tell what was made; the only time that the password is shown."""
    output.out.print(f"First start: made {path} with a self-signed certificate.")
    output.out.print(f"A credential to try with:  user [bold]{TEST_CREDENTIAL}[/]  password [bold]{password}[/]")
    output.out.print("Only its hash is kept. `mailfleet credential add` makes others.", style="dim")


def _toml(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"')


def hints(file: SettingsFile, command: str, password: str) -> list[str]:
    """Lines to paste that send a first mail; `command` is how to call us here, `password` empty after the first start."""
    submission, trusted = (_entrance(file, kind) for kind in ("submission", "trusted"))
    lines = ["", "Send a first mail:"]
    if trusted:
        lines.append(f"  [green]{command} send --to someone@example.org[/]")
    if submission:
        login = f"{TEST_CREDENTIAL}:{password}" if password else TEST_CREDENTIAL
        lines.append("or as any client does, with the test credential:")
        lines.append(
            r"  [green]printf 'Subject: Hello\n\nHello.\n' | curl -sS --crlf --ssl-reqd -k "
            f"-u {login} --mail-from me@example.org --mail-rcpt someone@example.org -T - smtp://{submission}[/]"
        )
    return [*lines, f"then [green]{command} inbox[/] and [green]{command} trace someone@example.org[/]", ""]


def _entrance(file: SettingsFile, kind: str) -> str:
    found = [item for item in file.section("ingest", IngestSettings).listeners if item.kind == kind]
    return listening.reachable(found[0]) if found else ""
