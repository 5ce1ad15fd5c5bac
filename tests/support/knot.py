"""A private Knot DNS server with the zones that a test writes as a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses
from support.needs import program
from support.processes import Process

CONFIGURATION = """\
server:
    rundir: {directory}
    listen: {address}@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {directory}
log:
  - target: stderr
    any: warning
zone:
  - domain: .
    file: {directory}/root.zone
    zonefile-sync: -1
    journal-content: none
{failing}
"""
FAILING = """\
  - domain: {domain}
    file: {directory}/there-is-no-such-file
    journal-content: none
"""
ROOT = """\
$TTL {ttl}
. SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 {ttl}
. NS ns.invalid.
"""

Zones = Mapping[str, Iterable[str]]
"""Domain → records as a zone file has them, without owner: `{"a.example": ["MX 10 mx.a.example.", "A 127.0.0.1"]}`.

Domains may be written in Unicode. What is in no key does not exist (NXDOMAIN).
"""


@dataclass(frozen=True, slots=True)
class Knot:
    """A running Knot."""

    address: str
    port: int

    @property
    def nameserver(self) -> str:
        """As the settings want it."""
        return f"{self.address}:{self.port}"


@contextmanager
def knot(directory: Path, zones: Zones, *, servfail: Iterable[str] = (), ttl: int = 5) -> Iterator[Knot]:
    """Start one that knows `zones` and answers SERVFAIL below the domains `servfail`; stop it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Knot(addresses.loopback(), addresses.free_port())
    (directory / "root.zone").write_text(zone_file(zones, ttl))
    failing = "".join(FAILING.format(domain=ascii_name(domain), directory=directory) for domain in servfail)
    configuration = directory / "knot.conf"
    configuration.write_text(
        CONFIGURATION.format(directory=directory, address=server.address, port=server.port, failing=failing)
    )
    process = Process("knotd", [str(program("knotd")), "-c", str(configuration)], directory / "output")
    try:
        process.wait_until_it_answers(server.address, server.port)
        yield server
    finally:
        process.stop(5)
        process.kill()


def zone_file(zones: Zones, ttl: int) -> str:
    """One root zone that holds all of `zones`."""
    records = [f"{ascii_name(domain)}. {record}\n" for domain, listed in zones.items() for record in listed]
    return ROOT.format(ttl=ttl) + "".join(records)


def ascii_name(domain: str) -> str:
    """A domain as DNS has it."""
    return domain if domain.isascii() else domain.encode("idna").decode()
