"""Network namespaces with real addresses, and a way into them for this thread and what it starts (root)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.processes import run

CLONE_NEWNET = 0x40000000
_setns = ctypes.CDLL(None, use_errno=True).setns


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A new one with loopback; gone at the end. Its full name bears the process's number."""
    full = f"mfe-{name}-{os.getpid()}"
    run(["ip", "netns", "add", full])
    try:
        run(["ip", "-n", full, "link", "set", "lo", "up"])
        yield full
    finally:
        run(["ip", "netns", "delete", full])


def wire(left: str, left_addresses: Sequence[str], right: str, right_addresses: Sequence[str], name: str) -> None:
    """A cable between two of them, with addresses such as `198.51.100.1/24` at its ends."""
    ends = (f"{name}0", f"{name}1")
    run(["ip", "-n", left, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", right])
    for space, end, addresses in ((left, ends[0], left_addresses), (right, ends[1], right_addresses)):
        for address in addresses:
            run(["ip", "-n", space, "address", "add", address, "dev", end])
        run(["ip", "-n", space, "link", "set", end, "up"])


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Sockets that this thread opens, and processes that it starts, are in the namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(Path("/run/netns") / name, os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(here)
        os.close(here)
        os.close(there)


def _enter(descriptor: int) -> None:
    if _setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[str, ...]]:
    """Several new ones."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(namespace(name)) for name in names)
