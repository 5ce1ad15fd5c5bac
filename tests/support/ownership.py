"""Whose the files of a server's private directory are: servers drop root and still have to reach them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def give_to(path: Path, user: str) -> None:
    """Make `user` and its group the owner of `path`."""
    shutil.chown(path, user, user)


def open_the_way(directory: Path) -> None:
    """Let every user pass through a directory that was made for root alone."""
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.geteuid() and str(path) != "/":
            path.chmod(path.stat().st_mode | 0o011)
