"""The mail world around a lab: four providers, each a machine of its own, and the DNS that leads to them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.lab import places
from cluster.lab.daemons import start
from cluster.lab.lab import SOURCES, Lab
from cluster.lab.names import Names
from cluster.lab.places import HOME, NAMESERVER
from cluster.lab.spaces import Space
from exam.receivers import RECEIVERS, Limits, Receiver, zones

PORT = 25
BLOCKLIST = "dnsbl.test"
TESTS = Path(__file__).parents[2]
LIMITS = Limits(
    messages_per_second=40.0, concurrency=4, messages_per_connection=100, connections_per_second=10.0, burst=20
)
"""Of each source at each provider, where a test names no others."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A mailbox provider that runs."""

    receiver: Receiver
    addresses: Sequence[str]
    """Of its MX hosts."""
    space: Space
    directory: Path

    @property
    def name(self) -> str:
        """`google`, `microsoft`, `yahoo` or `mimecast`."""
        return self.receiver.name

    def order(self, greylist: bool = False, blocked: Mapping[str, int] | None = None) -> None:
        """From now on block these addresses: so many messages of each are put off (4xx), further ones refused (5xx)."""
        self._write("orders.json", {"greylist": greylist, "blocked": blocked or {}})

    def connections(self) -> list[dict[str, Any]]:
        """All that it saw from others, as its book has it: connections, messages, excesses, each with the true address."""
        return [line for line in self._book("limits") if line["source"] not in self.addresses]

    def mails(self) -> list[dict[str, Any]]:
        """What it took, recipient by recipient."""
        return self._book("sink")

    def start(self, limits: Limits) -> None:
        """Begin to listen."""
        stage = {"receiver": self.name, "addresses": self.addresses, "port": PORT, "limits": asdict(limits)}
        self._write("stage.json", stage)
        files = {"stage": "stage.json", "orders": "orders.json", "log": "sink.jsonl", "limits": "limits.jsonl"}
        options = [f"--{option}={self.directory / file}" for option, file in files.items()]
        command = self.space.inside(sys.executable, "-m", "cluster.lab.provider", *options)
        start(f"provider-{self.name}", command, self.directory, {"PYTHONPATH": str(TESTS)})
        self.space.await_answer(self.addresses[-1], PORT)

    def _write(self, name: str, content: object) -> None:
        """In one step, for the provider may look at any moment."""
        arriving = self.directory / f"{name}.arriving"
        arriving.write_text(json.dumps(content))
        arriving.rename(self.directory / name)

    def _book(self, name: str) -> list[dict[str, Any]]:
        path = self.directory / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True, slots=True)
class Town:
    """All of it."""

    names: Names
    providers: dict[str, Provider]
    outside: Space
    """Where a client of ours is."""


def ehlo_name(number: int) -> str:
    """The host name of a sending IP, to which its PTR record points."""
    return f"out{number}.mailfleet.test"


def build(lab: Lab, limits: Limits = LIMITS) -> Town:
    """Start it all on the lab's wire."""
    names = Names(lab.join("names", NAMESERVER), HOME / "names")
    providers = {}
    for number, receiver in enumerate(RECEIVERS, 1):
        where = [places.provider(number, host) for host in range(1, len(receiver.hosts) + 1)]
        directory = HOME / "town" / receiver.name
        directory.mkdir(parents=True)
        provider = Provider(receiver, where, lab.join(receiver.name, *where), directory)
        provider.start(limits)
        providers[receiver.name] = provider
    hosts = {
        host: address
        for each in providers.values()
        for host, address in zip(each.receiver.hosts, each.addresses, strict=True)
    }
    names.add({host: [f"A {address}"] for host, address in hosts.items()})
    names.add(zones(hosts))
    for number in range(1, SOURCES + 1):
        names.point_back(places.source(number), ehlo_name(number))
    names.add({f"2.0.0.127.{BLOCKLIST}": ["A 127.0.0.2", "TXT listed-for-tests"]})
    names.publish()
    return Town(names, providers, lab.join("outside", places.OUTSIDE))
