"""What kube-score, a linter of objects, calls critical."""

from __future__ import annotations

import json
import subprocess

import pytest

from support.helm_chart import text_of, tool

pytestmark = pytest.mark.cluster
LEFT_OUT = {
    "container-image-pull-policy",  # images are named by version or digest, so one that is there is the right one
}
KNOWN = {
    # The operator makes these pods: no workload of the chart has them.
    ("networkpolicy-targets-pod", "mailfleet-sender"),
    # Network policies do not hold for the host's network; the proxy has users, TLS and networks of its own.
    ("pod-networkpolicy", "mailfleet-egress"),
    # The console is a service that is not ours yet.
    ("ingress-targets-service", "mailfleet-console"),
}
CRITICAL = 1


def test_nothing_is_critical_that_is_not_known(case: str) -> None:
    done = subprocess.run(
        [tool("kube-score"), "score", "--output-format", "json", "--ignore-test", ",".join(LEFT_OUT), "-"],
        input=text_of(case), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    scored = json.loads(done.stdout)
    found = {
        (check["check"]["id"], each["object_meta"]["name"])
        for each in scored
        for check in each["checks"] or ()
        if check["grade"] == CRITICAL and not check["skipped"]
    }
    assert len(scored) > 5
    assert found <= KNOWN, found - KNOWN
