"""Pods that run one command and end."""

from __future__ import annotations

from typing import Any

from cluster.lab.kubectl import Kubectl
from cluster.lab.manifests import RESTRICTED, named

ENDED = ("Succeeded", "Failed")


def run(
    kubectl: Kubectl, name: str, image: str, *command: str, files: dict[str, str] | None = None, **more: Any
) -> tuple[str, str]:
    """How a pod with these arguments of Python ended (its phase) and what it printed. `files` lie in /etc/mailfleet."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    if files:
        kubectl.apply(named("ConfigMap", name, data=files))
        volumes.append({"name": "files", "configMap": {"name": name}})
        mounts.append({"name": "files", "mountPath": "/etc/mailfleet"})
    container = {"name": "one", "image": image, "command": ["python", *command], "securityContext": RESTRICTED,
                 "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}  # fmt: skip
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes, **more}
    kubectl.apply(named("Pod", name, spec=spec))
    try:
        kubectl.wait(lambda: kubectl.get("pod", name)["status"]["phase"] in ENDED, f"the end of pod {name}", 120)
        return kubectl.get("pod", name)["status"]["phase"], kubectl("logs", name)
    finally:
        kubectl("delete", "pod", name, "--wait=false", "--force", "--grace-period=0")
