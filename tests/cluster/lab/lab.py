"""A real Kubernetes of one node on this machine, in network namespaces of its own. Needs root; nothing of it stays."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.lab import control_plane, images, keys, node, remains, spaces
from cluster.lab.daemons import Daemon
from cluster.lab.kubectl import Kubectl
from cluster.lab.places import HOME, NODE, NODE_NAME, source
from cluster.lab.programs import require_debian
from cluster.lab.spaces import Space
from support.needs import need

LOCK = Path("/var/lock/mailfleet-lab")
SOURCES = 12
"""Addresses for mail to leave from that the node has."""


@dataclass
class Lab:
    """A running one."""

    space: Space
    """Of the node."""
    kubectl: Kubectl
    daemons: dict[str, Daemon] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    """Step → seconds, for those who wonder where the time goes."""

    def join(self, name: str, *addresses: str) -> Space:
        """Another machine on the wire."""
        return spaces.join(name, addresses)

    def load(self, archive: Path) -> None:
        """Make an image known to the node."""
        node.import_image(HOME, archive)

    def process_of(self, container: str) -> int:
        """The id, on this machine, of the main process of a container as a pod's status names it."""
        return node.processes(HOME)[container.rpartition("/")[2]]

    def ready(self) -> bool:
        """Is the node ready?"""
        listed = self.kubectl.get("nodes")["items"]
        conditions = [each for item in listed for each in item["status"]["conditions"]]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextmanager
def lab() -> Iterator[Lab]:
    """Bring one up; one at a time on a machine. What an earlier run left is taken away first."""
    need("root")
    require_debian()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remains.clear()
        HOME.mkdir(parents=True)
        try:
            yield _up()
        finally:
            remains.clear()


def _up() -> Lab:
    spaces.lay_wire()
    space = spaces.join("node", [NODE, *map(source, range(1, SOURCES + 1))])
    space.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    certificates = keys.make(HOME / "keys")
    made = Lab(space, Kubectl(str(certificates.configuration("admin")), space))
    began = time.monotonic()
    started = [
        control_plane.start_store(space, HOME),
        control_plane.start_api(space, HOME, certificates),
        node.start_containerd(space, HOME),
    ]
    made.daemons = {each.name: each for each in started}
    pause = images.pause()
    control_plane.await_api(made.kubectl, made.daemons["apiserver"])
    made.took["API"] = time.monotonic() - began
    started = control_plane.start_controllers(space, HOME, certificates)
    made.load(pause)
    started += [node.start_kubelet(space, HOME, certificates), node.start_proxy(space, HOME, certificates)]
    made.daemons |= {each.name: each for each in started}
    made.kubectl.wait(made.ready, f"node {NODE_NAME}", 120)
    made.took["node"] = time.monotonic() - began
    return made
