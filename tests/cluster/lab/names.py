"""The DNS of the mail world outside the cluster, whose zones change while it runs."""

from __future__ import annotations

from pathlib import Path

from cluster.lab.daemons import start
from cluster.lab.places import NAMESERVER
from cluster.lab.spaces import Space
from support.knot import CONFIGURATION, zone_file
from support.needs import program
from support.processes import run

TTL = 2
FIRST_SERIAL = " 1 3600 "


class Names:
    """A running Knot and what it answers."""

    def __init__(self, space: Space, directory: Path) -> None:
        self.records: dict[str, list[str]] = {}
        """Domain → records, as `support.knot.Zones`. Call `publish` after changes."""
        self._directory, self._serial = directory, 0
        directory.mkdir(parents=True)
        self._configuration = directory / "knot.conf"
        self._configuration.write_text(
            CONFIGURATION.format(directory=directory, address=NAMESERVER, port=53, failing="")
        )
        self._write()
        start("names", space.inside(str(program("knotd")), "-c", str(self._configuration)), directory)
        space.await_answer(NAMESERVER, 53)

    def publish(self) -> None:
        """Answer with what `records` holds from now on (caches: for `TTL` seconds more with what was)."""
        self._write()
        run([str(program("knotc")), "-c", str(self._configuration), "-b", "zone-reload", "."], 20)

    def point_back(self, address: str, name: str) -> None:
        """A PTR record and the name that it leads to."""
        self.records[reverse(address)] = [f"PTR {name}."]
        self.records[name] = [f"A {address}"]

    def add(self, zones: dict[str, list[str]]) -> None:
        """More records."""
        self.records |= zones

    def _write(self) -> None:
        self._serial += 1
        text = zone_file(self.records, TTL).replace(FIRST_SERIAL, f" {self._serial} 3600 ", 1)
        (self._directory / "root.zone").write_text(text)


def reverse(address: str) -> str:
    """The name below which an IPv4 address's PTR record lies."""
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def listed(address: str, blocklist: str) -> str:
    """The name that exists when a DNS blocklist lists the address."""
    return ".".join(reversed(address.split("."))) + f".{blocklist}"
