"""A run that is killed leaves a cluster behind; the next one takes it away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cluster.lab import remains
from support.needs import leave_out

TESTS = Path(__file__).parents[1]
RUN = """
import time
from cluster.lab.lab import lab
from cluster.lab.manifests import named
from cluster.lab.node import PAUSE
with lab() as made:
    made.kubectl.apply(named("ServiceAccount", "default", "default"))
    made.kubectl.apply(named("Pod", "waits", "default", spec={"containers": [{"name": "one", "image": PAUSE}]}))
    made.kubectl.wait(lambda: made.kubectl.get("pod", "waits")["status"]["phase"] == "Running", "the pod")
    print("up", flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_run_that_was_killed() -> None:
    """Neither processes nor mounts, cgroups and network namespaces; with a pod in it."""
    if os.environ.get("KUBECONFIG"):
        leave_out("needs network namespaces on the node: run it without KUBECONFIG")
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'images'}"}
    run = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(remains.leftovers()) > 10
    remains.clear()
    assert remains.leftovers() == []
