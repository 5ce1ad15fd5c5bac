"""Takes a lab down, also one that an earlier run left behind when it was killed: whatever there is, in any order it died."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.lab import daemons, spaces
from cluster.lab.node import control_groups
from cluster.lab.places import HOME
from support.processes import run

POD_LINKS = Path("/var/log/containers")
CNI_RESULTS = Path("/var/lib/cni/results")


def clear() -> None:
    """End all processes, unmount, take cgroups, namespaces and files away. Quick when nothing is left."""
    daemons.end_all_left()
    for _ in range(3):
        if not _end_containers():
            break
    for name in spaces.left():
        spaces.delete(name)
    _unmount()
    _remove_control_groups()
    _remove_files()


def leftovers() -> list[str]:
    """What of a lab is still on this machine; for a test that nothing is."""
    processes = [f"process {number} in a namespace" for number in _inside()]
    processes += [f"process {number} {command}" for number, command in _ours()]
    mounts = [f"mount {place}" for place in _mounts()]
    groups = [f"cgroup {group}" for group in control_groups() if group.exists()]
    return processes + mounts + groups + [f"namespace {name}" for name in spaces.left()]


def _end_containers() -> bool:
    """Kill what is in the lab's cgroups and namespaces or was started with its files; False when there was nothing."""
    ids = {number for number, _ in _ours()} | set(_members()) | set(_inside())
    for number in ids - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    _until(lambda: not any(daemons.alive(number) for number in ids), 10)
    return bool(ids)


def _ours() -> Iterator[tuple[int, str]]:
    """Processes that have a file of the lab in their command: shims, and daemons whose note was lost."""
    mark = f"{HOME}/".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if mark in command and daemons.alive(int(entry.name)):
                yield int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")[:100]


def _members() -> Iterator[int]:
    for group in control_groups():
        for path in group.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from map(int, path.read_text().split())


def _inside() -> Iterator[int]:
    """Processes in the lab's network namespaces."""
    for name in spaces.left():
        yield from map(int, run(["ip", "netns", "pids", name]).stdout.split())


def _mounts() -> list[str]:
    """Deepest first."""
    places = [line.split(" ")[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((place for place in places if place.startswith(f"{HOME}/")), reverse=True)


def _unmount() -> None:
    for place in _mounts():
        run(["umount", "-l", place])


def _remove_control_groups() -> None:
    for group in control_groups():
        if group.exists():
            _until(lambda group=group: _removed(group), 5)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    for path in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def _remove_files() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    for link in POD_LINKS.glob("*") if POD_LINKS.exists() else []:
        if link.is_symlink() and os.readlink(link).startswith(str(HOME)):
            link.unlink()
    for result in CNI_RESULTS.glob("mfc-*"):
        result.unlink(missing_ok=True)


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
