"""The images of the lab: the product's own, and what a cluster needs besides. None comes from a registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.lab.node import PAUSE
from cluster.lab.programs import ROOT, built
from mailfleet_images import oci
from mailfleet_images.contents import DEBIAN_PACKAGES, make_base
from mailfleet_images.layers import Store, pack
from support.kafka import jars
from support.needs import CACHE, leave_out

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
STORE = Store(CACHE / "images")
JAVA = "openjdk-21-jre-headless"
JAVA_NEEDS = ('--essential-hook=mkdir -p "$1/usr/share/man/man1"',)
"""Its installer links manual pages there, although none is installed."""
KAFKA_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "CLASSPATH": "/kafka/*"}


@dataclass(frozen=True, slots=True)
class Made:
    """An image as an archive."""

    name: str
    """Repository and tag, as a pod names it."""
    archive: Path


def pause() -> Path:
    """What holds a pod's namespaces."""
    return _single(PAUSE, "pause", ["/pause"]).archive


def coredns() -> Made:
    """The DNS of the cluster."""
    return _single("docker.io/library/mfc-coredns:1", "coredns", ["/coredns"])


def kafka() -> Made:
    """Kafka's jars and a Java."""
    lib = jars()

    def lay_jars(root: Path) -> None:
        shutil.copytree(lib, root / "kafka")

    def make_java(tar: Path) -> None:
        make_base(ARCHITECTURE, os.environ.get("DEBIAN_MIRROR", ""), tar, (*DEBIAN_PACKAGES, JAVA), JAVA_NEEDS)

    java = STORE.layer("java", "\n".join([ARCHITECTURE, JAVA, *DEBIAN_PACKAGES]), make_java, "Debian with Java")
    content = STORE.layer("kafka", str(lib), _packed("kafka", lay_jars), "Kafka")
    return _written("docker.io/library/mfc-kafka:1", [java, content], ["java"], KAFKA_ENVIRONMENT)


def product() -> dict[str, Made]:
    """The images of this checkout, built as `make images` does; by name."""
    into = ROOT / "build" / "images"
    command = [sys.executable, "-m", "mailfleet_images", "--uv", str(_uv()), "--into", str(into)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "images")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        leave_out(f"make images failed: {(done.stdout + done.stderr)[-1000:]}")
    listed = json.loads((into / "images.json").read_text())
    return {name: Made(each["name"], into / each["archive"]) for name, each in listed.items()}


def _uv() -> Path:
    return max((ROOT / ".tools").glob("uv-*/bin/uv"))


def _single(name: str, tool: str, entrypoint: Sequence[str]) -> Made:
    """An image of one static program."""
    program = built(tool)

    def lay(root: Path) -> None:
        shutil.copy(program, root / tool)

    return _written(name, [STORE.layer(tool, str(program), _packed(tool, lay), tool)], entrypoint, {"PATH": "/"})


def _packed(part: str, lay: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(tar: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="mfc-image-") as directory:
            lay(Path(directory))
            pack(Path(directory), part, tar)

    return make


def _written(name: str, layers: Sequence[oci.Layer], entrypoint: Sequence[str], environment: Mapping[str, str]) -> Made:
    image = oci.Image(ARCHITECTURE, "2026-01-01T00:00:00Z", "65532:65532", environment, entrypoint, [], {}, layers)
    path = CACHE / "images" / f"{name.rpartition('/')[2].replace(':', '-')}.tar"
    oci.write(image, name, path)
    return Made(name, path)
