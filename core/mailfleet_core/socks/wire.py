"""The octets of SOCKS5 (RFC 1928) and of its passwords (RFC 1929).

An egress proxy is told the address to send from by BIND, and where to connect by CONNECT on the same connection. That is
how KumoProxy reads BIND, not how RFC 1928 does.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import NamedTuple

VERSION = 5
AUTH_VERSION = 1
"""Of the user name and password sub-negotiation (RFC 1929)."""
NO_AUTH, PASSWORD, NO_METHOD = 0x00, 0x02, 0xFF
CONNECT, BIND = 1, 2
IPV4, NAME, IPV6 = 1, 3, 4
_OCTETS = {IPV4: 4, IPV6: 16}
MAX_USER_OCTETS = 255
"""Of a user name, and of a password: their length is one octet."""


class Code(IntEnum):
    """What a reply says (RFC 1928, 6)."""

    DONE = 0
    FAILED = 1
    FORBIDDEN = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TIMED_OUT = 6
    """RFC 1928 calls it "TTL expired"."""
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS_TYPE = 8


class Place(NamedTuple):
    """An address and port in a request or reply, and where its octets end."""

    address: str
    """Empty: it is a host name, which is not looked at."""
    port: int
    end: int


class Unreadable(ValueError):
    """The address is of a type that RFC 1928 does not know."""


def message(command: int, address: str = "0.0.0.0", port: int = 0) -> bytes:
    """A request (`command` is BIND or CONNECT) or a reply (`command` is a Code). Raises ValueError for no address."""
    parsed = ipaddress.ip_address(address)
    kind = IPV4 if parsed.version == 4 else IPV6
    return bytes((VERSION, command, 0, kind)) + parsed.packed + port.to_bytes(2, "big")


def place(data: bytes, start: int) -> Place | None:
    """The address that begins with its type at `start`; None: more octets are needed. Raises Unreadable."""
    if len(data) < start + 2:
        return None
    kind = data[start]
    if kind == NAME:
        begin, octets = start + 2, data[start + 1]
    elif kind in _OCTETS:
        begin, octets = start + 1, _OCTETS[kind]
    else:
        raise Unreadable(f"address type {kind}")
    end = begin + octets + 2
    if len(data) < end:
        return None
    address = "" if kind == NAME else str(ipaddress.ip_address(data[begin : begin + octets]))
    return Place(address, int.from_bytes(data[end - 2 : end], "big"), end)


def password_message(user: str, password: str) -> bytes:
    """The sub-negotiation of RFC 1929. Raises ValueError when one of them is too long for it."""
    parts = [text.encode() for text in (user, password)]
    if not all(1 <= len(part) <= MAX_USER_OCTETS for part in parts):
        raise ValueError(f"user name and password have 1 to {MAX_USER_OCTETS} octets each")
    return bytes((AUTH_VERSION,)) + b"".join([bytes((len(part),)) + part for part in parts])
