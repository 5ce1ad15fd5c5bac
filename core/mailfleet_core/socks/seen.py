"""Which address the world sees when we connect from a source: asked of a server that says so."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from typing import NamedTuple

from mailfleet_core.socks.client import ProxyFailed, Stage
from mailfleet_core.socks.connecting import Door, source_socket
from mailfleet_core.socks.proxy import proxy_of

WORD = "egress-check"
"""Says in a greeting that the address in it is the client's."""
LONGEST_LINE = 4096
_IN_BRACKETS = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]{2,45})\]")


class Seen(NamedTuple):
    """What came of asking."""

    address: str
    """Empty: the server did not say, or could not be reached."""
    text: str
    """What it said, or what went wrong."""
    ours: bool = False
    """What went wrong did so before the destination came into it: the address is not on the machine, the proxy fails."""

    def mismatches(self, *expected: str) -> bool:
        """Is it known, and none of `expected`?"""
        return bool(self.address) and self.address not in {_normal(each) for each in expected}


def told(reply: str, greeting: bool = False) -> str:
    """The client's address in a server's reply: of `check`, or of a mail server to EHLO ("at your service, [192.0.2.1]").

    A mail server's greeting may name its own address, so in a `greeting` only that of `check` is believed.
    """
    if greeting and WORD not in reply:
        return ""
    for text in _IN_BRACKETS.findall(reply):
        if address := _normal(text):
            return address
    return ""


def answer(peer: str) -> bytes:
    """What `check` says to a client at `peer`."""
    return f"220 {WORD} [{_normal(peer) or 'unknown'}]\r\n".encode()


async def seen(
    proxy: str, source: str, target: str, *, password: str = "", context: ssl.SSLContext | None = None,
    ehlo_name: str = "localhost", seconds: float = 15.0,
) -> Seen:  # fmt: skip
    """The address that `target` (`address:port`) sees when it is connected to from `source` through `proxy` (a URL; empty:
    directly). Raises ValueError when one of them cannot be read."""
    host, _, port = target.rpartition(":")
    address = str(ipaddress.ip_address(host.strip("[]")))
    door = Door(proxy_of(proxy), password, context) if proxy else None
    try:
        async with asyncio.timeout(seconds):
            sock = await _connected(door, source, address, int(port))
            return await asked(sock, ehlo_name)
    except ProxyFailed as error:
        return Seen("", f"proxy: {error}", error.stage < Stage.CONNECT)
    except TimeoutError:
        return Seen("", "no answer in time")
    except _NotHere as error:
        return Seen("", str(error), True)
    except OSError as error:
        return Seen("", error.strerror or str(error))


class _NotHere(Exception):
    """The source cannot be bound to."""


async def _connected(door: Door | None, source: str, address: str, port: int) -> socket.socket:
    if door is not None:
        return await door.connected(source, address, port)
    try:
        sock = source_socket(source, socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise _NotHere(f"{source}: {error.strerror}") from error
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def asked(sock: socket.socket, ehlo_name: str) -> Seen:
    """Which address the server at the other end of a connection says it sees. Closes the connection. Raises OSError."""
    reader, writer = await asyncio.open_connection(sock=sock, limit=LONGEST_LINE)
    try:
        greeting = await _reply(reader)
        if address := told(greeting, greeting=True):
            return Seen(address, greeting)
        if not greeting.startswith("220"):
            return Seen("", greeting or "it closed the connection")
        writer.write(f"EHLO {ehlo_name}\r\n".encode())
        reply = await _reply(reader)
        writer.write(b"QUIT\r\n")
        return Seen(told(reply), reply or "it closed the connection")
    finally:
        with contextlib.suppress(OSError):
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> str:
    """One reply of several lines at most, joined; empty at the end of the connection or when it cannot be one."""
    lines: list[str] = []
    while len(lines) < 100:
        try:
            line = (await reader.readline()).decode("ascii", "replace").rstrip()
        except ValueError:  # longer than the limit
            return ""
        lines.append(line)
        if line[3:4] != "-":
            break
    return " ".join(lines)[:LONGEST_LINE]


def _normal(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
