"""A cluster as its users have it: kubectl, helm and the images it knows."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.lab.programs import built, kubectl
from cluster.lab.spaces import Space
from support.processes import ProcessError


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Commands against one cluster, run where it can be reached."""

    configuration: str
    space: Space | None = None
    """The network namespace of a lab; None: the machine's own network."""

    def __call__(self, *arguments: str, given: str = "", seconds: float = 60.0) -> str:
        """Run kubectl and return what it printed. Raises ProcessError."""
        return self._run([kubectl(), *arguments], given, seconds)

    def helm(self, *arguments: str, seconds: float = 600.0) -> str:
        """Run helm and return what it printed. Raises ProcessError."""
        return self._run([str(built("helm")), *arguments], "", seconds)

    def fails(self, *arguments: str) -> bool:
        """Does kubectl end with an error?"""
        try:
            self(*arguments)
        except ProcessError:
            return True
        return False

    def apply(self, *resources: Mapping[str, Any], namespace: str = "") -> None:
        """Make resources what these say; `namespace` is for those that name none."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(resources)}
        place = ["--namespace", namespace] if namespace else []
        # The server checks what it is given; kubectl's own check asks for 10 MB of schema first.
        self(
            "apply",
            *place,
            "--server-side",
            "--force-conflicts",
            "--validate=ignore",
            "-f",
            "-",
            given=json.dumps(listed),
        )

    def get(self, kind: str, *more: str, namespace: str = "default") -> dict[str, Any]:
        """A resource, or a list of them."""
        found: dict[str, Any] = json.loads(self("get", kind, *more, "--namespace", namespace, "-o", "json"))
        return found

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
        """Return when `condition` holds. Raises ProcessError that says what did not come, and how the pods are."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ProcessError(f"{what} did not come in {seconds:.0f} s:\n{self.troubles()}")
            time.sleep(0.5)

    def rolled_out(self, workload: str, namespace: str = "default", seconds: float = 300.0) -> None:
        """Return when all pods of a deployment or stateful set are ready. Raises ProcessError, as `wait`."""
        try:
            self("rollout", "status", workload, "-n", namespace, f"--timeout={seconds:.0f}s", seconds=seconds + 10)
        except ProcessError as error:
            raise ProcessError(f"{error}\n{self.troubles()}") from None

    def troubles(self) -> str:
        """Pods, and the newest events that are not normal."""
        pods = self("get", "pods", "-A", "-o", "wide")
        events = self("get", "events", "-A", "--field-selector", "type!=Normal", "--sort-by=.lastTimestamp")
        return pods + "\n".join(events.splitlines()[-15:])

    def _run(self, command: Sequence[str], given: str, seconds: float) -> str:
        here = list(command) if self.space is None else self.space.inside(*command)
        done = subprocess.run(
            here, input=given, capture_output=True, text=True, timeout=seconds, check=False,
            env={**os.environ, "KUBECONFIG": self.configuration},
        )  # fmt: skip
        if done.returncode:
            raise ProcessError(
                f"{' '.join(command[:6])} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout
