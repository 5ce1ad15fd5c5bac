"""`[sender]`: time-outs, connections and what the inside-address guard lets through."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated

import msgspec

from mailfleet_core.settings import Section, SettingsError, SourceSettings
from mailfleet_core.socks.proxy import proxy_of


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class SenderSettings(Section, frozen=True):
    """`[sender]`: how mail goes out."""

    lanes: Annotated[
        tuple[int, ...],
        _doc(
            "Lanes of dispatch that this process takes, for one that can send from some sources only; empty: any. As a "
            "variable of the environment: `MAILFLEET_SENDER__LANES=3,4`."
        ),
    ] = ()
    allowed_inside: Annotated[
        tuple[str, ...],
        _doc("Networks inside that may be connected to; the addresses of smart_host and lmtp routes always may."),
    ] = ()
    ip_order: Annotated[str, _doc("`ipv6_first`, `ipv4_first`, `ipv6_only` or `ipv4_only`.")] = "ipv6_first"
    ca_file: Annotated[str, _doc('CA certificates for `tls = "verify"`; empty: the system\'s.')] = ""
    max_connections: Annotated[int, _doc("Connections of one sender process, over all sites.")] = 1000
    site_share: Annotated[float, _doc("Share of `max_connections` that one site may have.")] = 0.25
    max_addresses: Annotated[int, _doc("Addresses tried for one connection, over all MX hosts.")] = 10
    max_queued_units: Annotated[int, _doc("Units waiting in one process; what comes beyond is given back.")] = 20_000
    body_bytes: Annotated[int, _doc("Message bytes in memory; one site may have a quarter.")] = 48 << 20
    idle_seconds: Annotated[float, _doc("A connection without work is kept this long.")] = 5.0
    pause_seconds: Annotated[float, _doc("No new connection to a next hop this long after all its hosts failed.")] = 5.0
    drain_seconds: Annotated[float, _doc("How long transactions under way may take to end at a stop.")] = 20.0
    proxy_users_file: Annotated[
        str, _doc("Lines of `user:password`: of the users that `proxy` of a source names. Read at every connection.")
    ] = ""
    proxy_ca_file: Annotated[str, _doc("CA certificates for `socks5s://` proxies; empty: the system's.")] = ""
    proxy_seconds: Annotated[float, _doc("Wait until an egress proxy has taken the source address.")] = 10.0
    egress_check: Annotated[
        str,
        _doc(
            "`address:port` outside that says which address it sees (`python -m mailfleet_egress check` there, or a mail "
            "server that repeats it in its answer to EHLO); empty: nobody is asked."
        ),
    ] = ""
    egress_check_seconds: Annotated[float, _doc("Between two questions of that for each source.")] = 600.0
    connect_seconds: Annotated[float, _doc("Wait for a TCP connection, per address.")] = 30.0
    greeting_seconds: Annotated[float, _doc("Wait for the greeting (RFC 5321 4.5.3.2.1).")] = 300.0
    ehlo_seconds: Annotated[float, _doc("Wait for the reply to EHLO, STARTTLS and AUTH.")] = 300.0
    mail_seconds: Annotated[float, _doc("Wait for the reply to MAIL (RFC 5321 4.5.3.2.2).")] = 300.0
    rcpt_seconds: Annotated[float, _doc("Wait for the reply to a RCPT (RFC 5321 4.5.3.2.3).")] = 300.0
    data_seconds: Annotated[float, _doc("Wait for the reply to DATA (RFC 5321 4.5.3.2.4).")] = 120.0
    block_seconds: Annotated[float, _doc("Wait for progress while the message is written (4.5.3.2.5).")] = 180.0
    dot_seconds: Annotated[float, _doc("Wait for the reply to the final dot (RFC 5321 4.5.3.2.6).")] = 600.0


ORDERS = ("ipv6_first", "ipv4_first", "ipv6_only", "ipv4_only")


def check(settings: SenderSettings) -> None:
    """Raises SettingsError for what types do not catch."""
    if settings.ip_order not in ORDERS:
        raise SettingsError(f"[sender] ip_order = {settings.ip_order!r}: it is one of {', '.join(ORDERS)}")
    if settings.egress_check:
        host, _, port = settings.egress_check.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            int(port)
        except ValueError as error:
            raise SettingsError(f"[sender] egress_check: {settings.egress_check!r} is no address:port") from error
    for text in settings.allowed_inside:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise SettingsError(f"[sender] allowed_inside: {text!r} is no address or network") from error


def check_sources(sources: Iterable[SourceSettings]) -> None:
    """Raises SettingsError for a proxy that cannot be one, or that could not be told from which address to connect."""
    for source in sources:
        if not source.proxy:
            continue
        try:
            proxy_of(source.proxy)
        except ValueError as error:
            raise SettingsError(f"[[source]] {source.name!r}: {error}") from error
        if not (source.address or source.address6):
            raise SettingsError(f"[[source]] {source.name!r}: a proxy is told an address, and the source has none")
