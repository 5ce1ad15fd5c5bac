"""The programs a lab consists of: Debian's, and those that scripts/tools.sh builds."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from support.needs import leave_out, missing, program

ROOT = Path(__file__).parents[3]
DEBIAN = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mmdebstrap": "mmdebstrap",
    "eatmydata": "eatmydata",
    "knotd": "knot",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
"""Program → package."""
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


def require_debian() -> None:
    """Install what is missing, where that is allowed; else leave the running test out."""
    absent = sorted({package for name, package in DEBIAN.items() if missing(name)})
    if not absent:
        return
    if os.geteuid() != 0 or missing("apt-get"):
        leave_out(f"a cluster needs root and: apt-get install {' '.join(absent)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            leave_out(f"apt-get {' '.join(command)} failed: {done.stderr[-500:]}")


@cache
def built(name: str) -> Path:
    """A program that scripts/tools.sh builds; it is built when it is not there yet."""
    done = subprocess.run([ROOT / "scripts" / "tools.sh", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        leave_out(f"scripts/tools.sh {name} failed")
    return Path(done.stdout.strip()) / name


def kubectl() -> str:
    """The machine's own, or one that is built."""
    return program("kubectl") or str(built("kubectl"))
