"""A DNS server that answers from a table, on UDP and TCP, and counts what it was asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SOA = "ns.example. hostmaster.example. 1 3600 600 86400 60"


@dataclass
class DnsServer:
    """Answers from `zone`: (name, type) → (ttl, records). A name that is a key of nothing does not exist."""

    zone: dict[tuple[str, str], tuple[int, list[str]]]
    servfail: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    truncated: set[str] = field(default_factory=set)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    over_tcp: Counter[str] = field(default_factory=Counter)
    port: int = 0

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._tcp, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._udp.close()

    def answer(self, wire: bytes, tcp: bool) -> bytes | None:
        """The bytes of the answer; None: silence."""
        question = dns.message.from_wire(wire)
        name = question.question[0].name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.asked[name, kind] += 1
        self.over_tcp[name] += tcp
        reply = dns.message.make_response(question)
        reply.flags |= dns.flags.RA
        if name in self.silent:
            return None
        if name in self.servfail:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.truncated and not tcp:
            reply.flags |= dns.flags.TC
        else:
            self._fill(reply, name, kind)
        return reply.to_wire(max_size=65535)

    def _fill(self, reply: dns.message.Message, name: str, kind: str) -> None:
        while (alias := self.zone.get((name, "CNAME"))) and kind != "CNAME":
            reply.answer.append(dns.rrset.from_text_list(f"{name}.", alias[0], "IN", "CNAME", alias[1]))
            name = alias[1][0].rstrip(".")
        if found := self.zone.get((name, kind)):
            reply.answer.append(dns.rrset.from_text_list(f"{name}.", found[0], "IN", kind, found[1]))
            return
        if not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text_list("example.", 60, "IN", "SOA", [SOA]))

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        if (answer := self.answer(await reader.readexactly(length), True)) is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if (answer := self.server.answer(data, False)) is not None:
            self.transport.sendto(answer, address)
