"""Whose the files of a server's private directory are: servers drop root and still have to reach them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def give_to(path: Path, user: str) -> None:
    """Make `user` and its group the owner of `path`."""
    shutil.chown(path, user, user)


@contextmanager
def public_directory(name: str) -> Iterator[Path]:
    """A new directory that every user may pass through, which pytest's own are not; gone at the end."""
    made = Path(tempfile.mkdtemp(prefix=f"mailfleet-{name}-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
