"""Pods of the lab, ended as a crash or an impatient administrator ends them, and whether they come back."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from cluster.lab import daemons
from cluster.lab.kubectl import Kubectl
from cluster.lab.lab import Lab
from exam.judge import Kill

KILL, DELETE = "kill -9", "delete --force"
BACK_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Victim:
    """A kind of pod."""

    kind: str
    """As `exam.judge.Kill` has it: ingest, router, sender, log; or operator, of which the leader is meant."""
    namespace: str
    selector: str


def end(lab: Lab, kubectl: Kubectl, victim: Victim, how: str) -> Kill:
    """End one pod; returns when its process is gone, which is the time that counts."""
    chosen = _chosen(kubectl, victim)
    name = chosen["metadata"]["name"]
    process = lab.process_of(_containers(chosen)[0])
    if how == KILL:
        os.kill(process, signal.SIGKILL)
    else:
        kubectl("delete", "pod", name, "-n", victim.namespace, "--force", "--grace-period=0", "--wait=false")
    kubectl.wait(lambda: not daemons.alive(process), f"the end of {name}", 60)
    return Kill(time.time(), name, victim.kind, "KILL")


def await_back(kubectl: Kubectl, victim: Victim, before: list[dict[str, Any]]) -> None:
    """Return when as many pods are ready as `before` the end, and not all of them the same containers."""
    old = {container for pod in before for container in _containers(pod)}

    def back() -> bool:
        now = pods(kubectl, victim)
        return (
            len(now) == len(before)
            and all(map(_ready, now))
            and old != {each for pod in now for each in _containers(pod)}
        )

    kubectl.wait(back, f"{victim.kind} back", BACK_SECONDS)


def containers(kubectl: Kubectl, victim: Victim) -> set[str]:
    """Of all pods of the kind that are not about to go."""
    return {container for pod in pods(kubectl, victim) for container in _containers(pod)}


def pods(kubectl: Kubectl, victim: Victim) -> list[dict[str, Any]]:
    """Pods of the kind that are not about to go."""
    found = kubectl.get("pods", "-l", victim.selector, namespace=victim.namespace)["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def _chosen(kubectl: Kubectl, victim: Victim) -> dict[str, Any]:
    """The last of the kind by name; of operators the one that leads."""
    found = sorted(pods(kubectl, victim), key=lambda pod: pod["metadata"]["name"])
    if victim.kind != "operator":
        return found[-1]
    leader = kubectl.get("lease", "mailfleet-operator", namespace=victim.namespace)["spec"]["holderIdentity"]
    return next(pod for pod in found if pod["metadata"]["name"] == leader)


def _containers(pod: dict[str, Any]) -> list[str]:
    return [each.get("containerID", "") for each in pod["status"].get("containerStatuses", ())]


def _ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
