"""`[egress_proxy]`: who may use this proxy, from which addresses it connects, and where to."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from mailfleet_core.settings import Section, SettingsError


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class EgressProxySettings(Section, frozen=True):
    """`[egress_proxy]`: a SOCKS5 proxy that connects from the addresses of this machine (`python -m mailfleet_egress`)."""

    address: Annotated[str, _doc("Address to listen on; `0.0.0.0` or `::` for all.")] = "127.0.0.1"
    port: Annotated[int, _doc("TCP port to listen on.")] = 1080
    addresses: Annotated[
        tuple[str, ...], _doc("Source addresses that clients may ask for; others are refused, whether plumbed or not.")
    ] = ()
    ports: Annotated[tuple[int, ...], _doc("Ports that may be connected to.")] = (25, 465, 587)
    allowed_inside: Annotated[
        tuple[str, ...], _doc("Networks inside that may be connected to; as in [sender], none by default.")
    ] = ()
    networks: Annotated[tuple[str, ...], _doc("Clients that may connect; empty: all.")] = ()
    users_file: Annotated[
        str, _doc("Lines of `user:password`, or `user:` and what `mailfleet_egress user` prints. Read again on change.")
    ] = ""
    allow_without_users: Annotated[
        bool, _doc("Start without users although others than this machine can connect: who can reach it sends as us.")
    ] = False
    certificate_file: Annotated[str, _doc("PEM certificate chain: clients must speak TLS. Read again on change.")] = ""
    key_file: Annotated[str, _doc("PEM private key; empty: it is in certificate_file.")] = ""
    max_connections: Annotated[int, _doc("Clients at once.")] = 5000
    max_connections_per_client: Annotated[int, _doc("Clients at once from one address.")] = 2000
    handshake_seconds: Annotated[float, _doc("From accept to the source address, with TLS and password.")] = 10.0
    request_seconds: Annotated[float, _doc("From the source address to the destination.")] = 60.0
    connect_seconds: Annotated[
        float, _doc("Wait for the destination; less than the senders' connect_seconds, so that they hear why.")
    ] = 25.0
    idle_seconds: Annotated[
        float, _doc("A connection on which nothing moves ends; more than the senders' dot_seconds.")
    ] = 900.0
    half_close_seconds: Annotated[float, _doc("The same, once one side has said all.")] = 60.0
    drain_seconds: Annotated[float, _doc("At a stop, how long connections may go on.")] = 25.0
    plumbing_seconds: Annotated[float, _doc("Between two looks at which addresses are on this machine.")] = 5.0


def check(settings: EgressProxySettings) -> None:
    """Raises SettingsError for what types do not catch, and for what would be an open door."""
    _check_addresses(settings)
    if not settings.addresses:
        raise SettingsError("[egress_proxy] addresses is empty: name the source addresses that clients may ask for")
    if not all(0 < port < 65536 for port in settings.ports):
        raise SettingsError("[egress_proxy] ports: a port is 1 to 65535")
    open_to_others = not ipaddress.ip_address(settings.address).is_loopback
    if open_to_others and not settings.users_file and not settings.allow_without_users:
        raise SettingsError(
            f"[egress_proxy] address = {settings.address!r} without users_file: whoever reaches this port would send from "
            "our addresses; name a users_file, listen on 127.0.0.1, or say allow_without_users = true"
        )


def _check_addresses(settings: EgressProxySettings) -> None:
    for key in ("address", "addresses"):
        given = getattr(settings, key)
        for text in (given,) if isinstance(given, str) else given:
            try:
                ipaddress.ip_address(text)
            except ValueError as error:
                raise SettingsError(f"[egress_proxy] {key}: {text!r} is no IP address") from error
    for key in ("allowed_inside", "networks"):
        for text in getattr(settings, key):
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise SettingsError(f"[egress_proxy] {key}: {text!r} is no address or network") from error
