"""Small file systems of a test's own: on a loop device, whose power can be cut, or of few megabytes, which fill up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import processes


@contextmanager
def ext4(image: Path, where: Path, megabytes: int = 0) -> Iterator[Path]:
    """Mount the ext4 in `image` at `where`; with `megabytes`, make it first."""
    where.mkdir(parents=True, exist_ok=True)
    if megabytes:
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        processes.run(["mkfs.ext4", "-q", "-F", str(image)])
    processes.run(["mount", "-o", "loop", str(image), str(where)])
    try:
        yield where
    finally:
        processes.run(["umount", "--lazy", str(where)])


def as_after_a_power_cut(image: Path, copy: Path) -> None:
    """Copy a mounted image: what was written and not synced is not in it, as after a power cut."""
    processes.run(["cp", "--sparse=always", str(image), str(copy)])


@contextmanager
def tmpfs(where: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small file system in memory at `where`."""
    where.mkdir(parents=True, exist_ok=True)
    processes.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(where)])
    try:
        yield where
    finally:
        processes.run(["umount", "--lazy", str(where)])


def fill(directory: Path, leave_bytes: int) -> Path:
    """Put a file into `directory` that leaves so much room; delete it to give the room back."""
    filler = directory / "filler"
    size = shutil.disk_usage(directory).free - leave_bytes
    with filler.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return filler
