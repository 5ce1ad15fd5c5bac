"""The operator as the chart installs it: with the chart's rights, and the chart's template of a sender."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.control_plane import ControlPlane
from support.helm_chart import named, objects
from support.operators import Fleet, eventually, served

pytestmark = pytest.mark.timeout(200)
CASE = "egressproxy"
EGRESS_NAMESPACE = "mail-egress"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def rights(plane: ControlPlane, namespace: str) -> None:
    """The operator's account and what it may do, from the chart into a namespace of the test."""
    for each in objects(CASE):
        about = each["metadata"]
        if each["kind"] in ("ServiceAccount", "Role", "RoleBinding") and about["name"] == "mailfleet-operator":
            if about["namespace"] != "mail":
                continue
            text = json.dumps(each).replace('"namespace": "mail"', f'"namespace": "{namespace}"')
            plane.kubectl("apply", "--server-side", "-f", "-", text=text)


def kubeconfig(plane: ControlPlane, namespace: str, directory: Path) -> str:
    """That reaches the API server as the operator's account does."""
    token = plane.kubectl("create", "token", "mailfleet-operator", "-n", namespace).strip()
    found = json.loads(plane.kubeconfig.read_text())
    found["users"][0]["user"] = {"token": token}
    path = directory / "operator.kubeconfig"
    path.write_text(json.dumps(found))
    return str(path)


@pytest.fixture
async def installed(fleet: Fleet, plane: ControlPlane, tmp_path: Path) -> dict[str, Any]:
    """Settings of an operator with the chart's rights in a restricted namespace."""
    namespace = fleet.kubernetes.namespace
    fleet.kubernetes.change("Namespace", namespace, metadata={"labels": RESTRICTED})
    rights(plane, namespace)
    template = tmp_path / "chart-sender.yaml"
    template.write_text(named(CASE, "ConfigMap", "mailfleet-sender")["data"]["sender.yaml"])
    return {
        "kubeconfig": kubeconfig(plane, namespace, tmp_path),
        "template": str(template),
        "egress_namespace": EGRESS_NAMESPACE,
    }


async def test_the_charts_rights_are_enough_and_senders_are_restricted(
    fleet: Fleet, installed: dict[str, Any], plane: ControlPlane
) -> None:
    fleet.address("ip-1", "192.0.2.1")
    fleet.pool("tx", "ip-1", egress={"mode": "EgressProxy", "proxy": {"endpoints": ["egress:1080"]}})
    fleet.kubernetes.create("TrafficPolicy", "mine", spec={"policy": {"version": 1}})
    await fleet.operator(**installed)
    await served(fleet, "ip-1")
    assert fleet.sources["ip-1"].proxy == "socks5://egress:1080"
    await eventually(lambda: fleet.kubernetes.get("ConfigMap", "mailfleet-policy"))
    assert await eventually(lambda: fleet.kubernetes.all("Event"))
    (deployment,) = fleet.kubernetes.all("Deployment")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sender", "namespace": fleet.kubernetes.namespace},
        "spec": deployment["spec"]["template"]["spec"],
    }
    assert "created" in plane.kubectl("create", "--dry-run=server", "-f", "-", text=yaml.safe_dump(pod))


async def test_what_is_gone_is_taken_away_with_the_charts_rights(fleet: Fleet, installed: dict[str, Any]) -> None:
    fleet.address("ip-1", "192.0.2.1")
    fleet.pool("tx", "ip-1")
    await fleet.operator(**installed)
    await served(fleet, "ip-1")
    fleet.kubernetes.delete("SendingIP", "ip-1")
    await eventually(lambda: not fleet.kubernetes.all("Deployment"), 60)
