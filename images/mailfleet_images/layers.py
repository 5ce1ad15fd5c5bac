"""Layers: directories and archives made into compressed tar files that are the same whenever their content is."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mailfleet_images.oci import Layer

EPOCH = 1_700_000_000
"""The time of every file (Unix seconds): a file's age must not change a layer."""


class Store:
    """Finished layers by a key of all that goes into them, outside the checkout, so that each is made once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def layer(self, name: str, ingredients: str, make: Callable[[Path], None], made_by: str) -> Layer:
        """The layer of `ingredients`; `make` writes its tar file into a given path when it is not there yet."""
        key = hashlib.sha256(ingredients.encode()).hexdigest()[:16]
        home = self._directory / f"{name}-{key}"
        if not (home / "layer.json").exists():
            home.mkdir(parents=True, exist_ok=True)
            tar = home / "arriving.tar"
            make(tar)
            _finish(tar, home)
        known = json.loads((home / "layer.json").read_text())
        return Layer(home / "layer.tar.gz", known["digest"], known["diff_id"], known["size"], made_by)


def pack(root: Path, part: str, tar: Path) -> None:
    """Write the directory `part` of `root` as a tar file: sorted, owned by root, of one age."""
    _run(
        "tar", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        "--sort=name", "--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{EPOCH}",
        "--mode=u=rwX,go=rX", "-C", str(root), "-cf", str(tar), part,
    )  # fmt: skip


def unpack(tar_gz: Path, root: Path) -> None:
    """Lay a layer's files into `root`; devices are left out."""
    root.mkdir(parents=True, exist_ok=True)
    _run("tar", "-C", str(root), "--exclude=./dev/*", "-xzf", str(tar_gz))


def _finish(tar: Path, home: Path) -> None:
    compressed = home / "layer.tar.gz"
    diff_id = hashlib.sha256()
    with tar.open("rb") as source, compressed.open("wb") as sink, gzip.GzipFile("", "wb", 6, sink, mtime=0) as squeezed:
        while block := source.read(1 << 20):
            diff_id.update(block)
            squeezed.write(block)
    tar.unlink()
    with compressed.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    known = {
        "digest": f"sha256:{digest}",
        "diff_id": f"sha256:{diff_id.hexdigest()}",
        "size": compressed.stat().st_size,
    }
    arriving = home / "layer.arriving"
    arriving.write_text(json.dumps(known))
    arriving.rename(home / "layer.json")


def _run(*command: str) -> None:
    if missing := [name for name in command[:1] if not shutil.which(name)]:
        raise FileNotFoundError(f"images need {missing[0]}")
    subprocess.run(command, check=True)
