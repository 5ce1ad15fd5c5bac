"""The chart, rendered by helm for every file in its `ci` folder, and the pods that come of it."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.needs import CACHE, leave_out

CHART = Path(__file__).resolve().parents[2] / "charts" / "mailfleet"
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
TOOLS = Path(os.environ.get("MAILFLEET_TOOLS", CACHE / "tools"))
APIS = ("cert-manager.io/v1", "kafka.strimzi.io/v1", "monitoring.coreos.com/v1", "cilium.io/v2")
VERSION = "1.34.0"

Object = dict[str, Any]


def tool(name: str) -> str:
    """The path of a program that scripts/tools.sh builds; leaves the test out when it is not there."""
    built = sorted(TOOLS.glob(f"{name}-[0-9]*/bin/{name}"))
    found = str(built[-1]) if built else shutil.which(name)
    if found is None:
        leave_out(f"needs {name}; run: scripts/tools.sh {name}")
    assert found is not None
    return found


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """One call of helm."""
    return subprocess.run([tool("helm"), *words], capture_output=True, text=True, timeout=120, check=False)


@cache
def text_of(case: str, *options: str) -> str:
    """What `helm template` makes of a case."""
    values = CHART / "ci" / f"{case}-values.yaml"
    versions = [word for api in APIS for word in ("--api-versions", api)]
    done = helm(
        "template", "mailfleet", str(CHART), "-n", "mail", "-f", str(values), "--kube-version", VERSION, *versions, *options
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _parsed(case: str, *options: str) -> list[Object]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [found for found in yaml.load_all(text_of(case, *options), Loader=loader) if found]


def objects(case: str, *options: str) -> list[Object]:
    """The objects of a case, to do with what one likes."""
    return copy.deepcopy(_parsed(case, *options))


def named(case: str, kind: str, name: str, namespace: str = "mail") -> Object:
    """One of them."""
    (found,) = [
        each for each in objects(case)
        if each["kind"] == kind and each["metadata"]["name"] == name and each["metadata"].get("namespace") == namespace
    ]  # fmt: skip
    return found


LONG_LIVED = ("Deployment", "StatefulSet", "DaemonSet", "SenderTemplate")


@dataclass(frozen=True, slots=True)
class PodShape:
    """A pod's metadata and spec, and whose it is."""

    owner: str
    kind: str
    namespace: str
    metadata: Object
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All of its containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: list[Object]) -> Iterator[PodShape]:
    """All pods in `objects`."""
    for each in objects:
        kind, meta = each["kind"], each["metadata"]
        namespace = meta.get("namespace", "")
        if kind == "Pod":
            yield PodShape(meta["name"], kind, namespace, meta, each["spec"])
        elif kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = each["spec"]["template"]
            yield PodShape(meta["name"], kind, namespace, template["metadata"], template["spec"])
        elif kind == "ConfigMap" and "sender.yaml" in each.get("data", {}):
            template = yaml.safe_load(each["data"]["sender.yaml"])
            yield PodShape(meta["name"], "SenderTemplate", namespace, template["metadata"], template["spec"])
