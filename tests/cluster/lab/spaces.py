"""Network namespaces on one wire: each is a machine of its own as far as IP goes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.lab.places import NETWORK, PREFIX, ROUTER
from support.processes import ProcessError, run

NAMES = Path("/var/run/netns")
WIRE = PREFIX + "wire"


@dataclass(frozen=True, slots=True)
class Space:
    """One network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """What nsenter takes. (`ip netns exec` would bring a /sys without cgroups.)"""
        return NAMES / self.name

    def inside(self, *command: str) -> list[str]:
        """A command that runs in it."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, seconds: float = 60.0) -> str:
        """Run a command in it to its end and return what it printed. Raises ProcessError."""
        return run(self.inside(*command), seconds).stdout.decode()

    def await_answer(self, address: str, port: int, seconds: float = 60.0) -> None:
        """Return when somebody accepts connections there. Raises ProcessError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.run("bash", "-c", f"</dev/tcp/{address}/{port}")
                return
            except ProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def add(self, addresses: Iterable[str]) -> None:
        """Give its device more addresses."""
        for address in addresses:
            run(["ip", "-n", self.name, "address", "replace", f"{address}/{NETWORK}", "dev", "eth0"])

    def remove(self, address: str) -> None:
        """Take an address away."""
        run(["ip", "-n", self.name, "address", "del", f"{address}/{NETWORK}", "dev", "eth0"])


def lay_wire() -> None:
    """The bridge that all are joined to, in a namespace of its own."""
    run(["ip", "netns", "add", WIRE])
    run(["ip", "-n", WIRE, "link", "add", "wire", "type", "bridge"])
    run(["ip", "-n", WIRE, "link", "set", "wire", "up"])


def join(name: str, addresses: Iterable[str]) -> Space:
    """A new namespace on the wire that has `addresses`."""
    space = Space(PREFIX + name)
    run(["ip", "netns", "add", space.name])
    run(["ip", "-n", space.name, "link", "set", "lo", "up"])
    run(["ip", "link", "add", "eth0", "netns", space.name, "type", "veth", "peer", "name", name, "netns", WIRE])
    run(["ip", "-n", WIRE, "link", "set", name, "master", "wire", "up"])
    run(["ip", "-n", space.name, "link", "set", "eth0", "up"])
    space.add(addresses)
    run(["ip", "-n", space.name, "route", "replace", "default", "via", ROUTER])
    return space


def left() -> list[str]:
    """Names of namespaces of the lab that exist."""
    return sorted(path.name for path in NAMES.glob(PREFIX + "*")) if NAMES.exists() else []


def delete(name: str) -> None:
    """Take a namespace away with its devices; nothing when it is not there."""
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
