"""`[ingest]`: who may hand in mail, where, and how much of it."""

from __future__ import annotations

import socket
from typing import Annotated

import msgspec

from mailfleet_core.settings import Section


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class ListenerSettings(Section, frozen=True):
    """`[[ingest.listeners]]`: one port that takes mail."""

    name: Annotated[str, _doc("Its name in metrics and logs; empty: its kind.")] = ""
    address: Annotated[str, _doc("Address to listen on; `0.0.0.0` or `::` for all.")] = "127.0.0.1"
    port: Annotated[int, _doc("TCP port; several ingest processes share it.")] = 2525
    kind: Annotated[
        str,
        _doc(
            "`submission` (STARTTLS, then AUTH), `implicit_tls` (TLS at once, then AUTH) or `trusted` (no AUTH needed)."
        ),
    ] = "trusted"
    certificate_file: Annotated[str, _doc("PEM certificate chain; read again when it changes.")] = ""
    key_file: Annotated[str, _doc("PEM private key; empty: it is in certificate_file.")] = ""
    networks: Annotated[
        tuple[str, ...], _doc("trusted: clients that may connect. Empty for the other kinds: everybody may.")
    ] = ()
    proxy_protocol: Annotated[bool, _doc("Every connection begins with a PROXY header (version 1 or 2).")] = False
    proxy_networks: Annotated[tuple[str, ...], _doc("proxy_protocol: proxies that are believed.")] = ()
    tenant: Annotated[str, _doc("trusted: whose mail it is.")] = "default"
    stream: Annotated[str, _doc("trusted: class of mail.")] = "transactional"
    pool: Annotated[str, _doc("trusted: egress pool.")] = "default"
    sender_domains: Annotated[
        tuple[str, ...], _doc("trusted: domains of MAIL FROM; `*.example.org` for all below one.")
    ] = ("*",)
    null_sender: Annotated[bool, _doc("trusted: MAIL FROM:<> is allowed.")] = True
    repair_bare_lf: Annotated[bool, _doc("Make bare LF in content CRLF instead of refusing the mail.")] = False
    greeting_delay_seconds: Annotated[
        float | None, _doc("Who talks before the greeting is refused. Default: 0.05, and 0 on trusted listeners.")
    ] = None

    @property
    def label(self) -> str:
        """Its name in metrics and logs."""
        return self.name or self.kind


class IngestSettings(Section, frozen=True):
    """`[ingest]`: the listeners and what is the same for all of them."""

    hostname: Annotated[str, _doc("Our name in greeting and Received; empty: this machine's.")] = ""
    listeners: Annotated[tuple[ListenerSettings, ...], _doc("Ports; none given: trusted on 127.0.0.1:2525.")] = (
        ListenerSettings(),
    )
    credentials_file: Annotated[
        str, _doc("Credentials; empty: `credentials.toml` beside the settings file. Read again when it changes.")
    ] = ""
    max_message_bytes: Annotated[int, _doc("Largest message, announced as SIZE.")] = 50 << 20
    max_recipients: Annotated[int, _doc("Recipients of one message; then 452.")] = 1000
    recipients_per_unit: Annotated[
        int, _doc("A message with more recipients at one site is split; as in [router].")
    ] = 100
    max_connections: Annotated[int, _doc("Client connections of one process.")] = 1000
    max_connections_per_address: Annotated[int, _doc("Client connections from one address.")] = 200
    max_connections_per_credential: Annotated[
        int, _doc("Client connections of one credential, unless it says less.")
    ] = 200
    max_commands_without_mail: Annotated[int, _doc("Commands of a session since its last mail.")] = 100
    max_errors: Annotated[int, _doc("Refused commands since the last mail; then 421.")] = 20
    max_auth_failures: Annotated[int, _doc("Wrong passwords on one connection; then 421.")] = 3
    campaign_header: Annotated[
        str,
        _doc(
            "Header field whose value is the campaign of a mail (100 octets of it), for `mailfleet suspend --campaign` "
            "and its like; empty: mail has none."
        ),
    ] = "X-Campaign"
    address_literals: Annotated[bool, _doc("Accept addresses such as `a@[192.0.2.1]`.")] = False
    idle_seconds: Annotated[float, _doc("Longest wait for the next command (RFC 5321 4.5.3.2.7).")] = 300.0
    session_seconds: Annotated[float, _doc("Longest time of a session without a mail.")] = 3600.0
    min_bytes_per_second: Annotated[float, _doc("Slowest a client may send content, on average.")] = 500.0
    write_seconds: Annotated[float, _doc("Longest a client may leave our replies unread.")] = 60.0
    max_held_bytes: Annotated[int, _doc("Bytes of unfinished mail in memory; above it MAIL gets 452.")] = 96 << 20
    verify_threads: Annotated[int, _doc("Passwords verified at once (19 MiB each).")] = 2
    allow_weak_tls: Annotated[bool, _doc("Accept TLS 1.0 and 1.1 from old devices.")] = False

    def own_name(self) -> str:
        """The name we go by."""
        return self.hostname or socket.getfqdn()
