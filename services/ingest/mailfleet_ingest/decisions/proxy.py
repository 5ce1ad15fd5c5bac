"""The PROXY protocol header, versions 1 and 2: who the client of our proxy is."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1_OCTETS = 107
MAX_V2_OCTETS = 16 + 216 + 1024
"""Addresses of the largest family and some TLVs, which we skip."""


class BadProxyHeader(ValueError):
    """Not a PROXY header: the peer is not the proxy it should be."""


class ProxyHeader(NamedTuple):
    """The header, understood."""

    octets: int
    """Its length; what follows is the client's."""
    client: str
    """Empty: the proxy speaks for itself (a health check)."""


def parse(data: bytes) -> ProxyHeader | None:
    """The header at the start of `data`; None: more is needed. Raises BadProxyHeader."""
    if data[:12] == SIGNATURE[: len(data)] and data:
        return _version_2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _version_1(data)
    raise BadProxyHeader("no PROXY header")


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1_OCTETS)
    if end < 0:
        if len(data) >= MAX_V1_OCTETS:
            raise BadProxyHeader("version 1 header without end")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[1:2] == ["UNKNOWN"]:
        return ProxyHeader(end + 2, "")
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadProxyHeader("malformed version 1 header")
    return ProxyHeader(end + 2, _address(words[2]))


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    length = int.from_bytes(data[14:16], "big")
    if data[12] >> 4 != 2 or 16 + length > MAX_V2_OCTETS:
        raise BadProxyHeader("malformed version 2 header")
    if len(data) < 16 + length:
        return None
    if data[12] & 15 == 0:
        return ProxyHeader(16 + length, "")
    family = data[13] >> 4
    octets = {1: 4, 2: 16}.get(family)
    if data[12] & 15 != 1 or octets is None or length < 2 * octets + 4:
        raise BadProxyHeader("version 2 header without an internet address")
    return ProxyHeader(16 + length, str(ipaddress.ip_address(data[16 : 16 + octets])))


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadProxyHeader("malformed address") from None
