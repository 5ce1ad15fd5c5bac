"""The resource types on a real API server: what they admit, what they refuse and why, and how they are shown."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lightkube import ApiError

from mailfleet_operator.decisions.resources import PoolSpec
from mailfleet_operator.shell import types_command
from support.control_plane import ADMIN, ControlPlane
from support.operators import Kubernetes

EGRESS = {"mode": "PodNetwork"}
HERE = {"address": "192.0.2.1", "hostname": "mx1.example.org"}


def refused(kubernetes: Kubernetes, kind: str, **spec: Any) -> str:
    with pytest.raises(ApiError) as caught:
        kubernetes.create(kind, "x", spec=spec)
    return str(caught.value.status.message)


def test_applying_them_again_changes_nothing(plane: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    types_command.apply(str(plane.kubeconfig))
    assert capsys.readouterr().out.splitlines() == [
        "senderpools.mailfleet.dev applied",
        "sendingips.mailfleet.dev applied",
        "trafficpolicies.mailfleet.dev applied",
    ]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"egress": EGRESS, "scaling": {"minLanes": 5, "maxLanes": 2}}, "minLanes must not exceed"),
        ({"egress": EGRESS, "scaling": {"mode": "Manual"}}, "Manual needs replicas"),
        ({"egress": EGRESS, "reputation": {"slowBelow": 40, "quarantineBelow": 40}}, "quarantineBelow must be less"),
        ({"egress": EGRESS, "reputation": {"complaints": "some"}}, "complaints"),
        ({"egress": {"mode": "EgressProxy"}}, "needs egress.proxy"),
        ({"egress": {"mode": "SecondaryNetwork"}}, "needs egress.secondaryNetwork"),
        ({"egress": {"mode": "EgressGateway"}}, "needs egress.gateway"),
        ({"egress": {"mode": "Pigeons"}}, "Unsupported value"),
        ({"egress": EGRESS, "sources": [{"name": "a"}], "spares": ["a"]}, "cannot be its spare too"),
        ({"egress": EGRESS, "sources": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
        ({"egress": EGRESS, "overflow": "x"}, "cannot overflow into itself"),
    ],
)
def test_a_pool_that_contradicts_itself_is_refused(kubernetes: Kubernetes, spec: dict[str, Any], why: str) -> None:
    assert why in refused(kubernetes, "SenderPool", **spec)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hostname": "mx1.example.org"}, "has an address, an address6, or both"),
        ({**HERE, "address": "2001:db8::1"}, "must be an IPv4 address"),
        ({**HERE, "address6": "192.0.2.1"}, "must be an IPv6 address"),
        ({**HERE, "bindAddress": "nonsense"}, "must be an IPv4 address"),
        ({**HERE, "hostname": "not a name"}, "hostname"),
        ({**HERE, "state": "Asleep"}, "Unsupported value"),
    ],
)
def test_an_address_that_is_none_is_refused(kubernetes: Kubernetes, spec: dict[str, Any], why: str) -> None:
    assert why in refused(kubernetes, "SendingIP", **spec)


def test_an_address_stays_what_it_is_and_what_is_retired_stays_so(kubernetes: Kubernetes) -> None:
    kubernetes.create("SendingIP", "ip-1", spec=HERE)
    with pytest.raises(ApiError, match="another address is another SendingIP"):
        kubernetes.change("SendingIP", "ip-1", spec={"address": "192.0.2.2"})
    kubernetes.change("SendingIP", "ip-1", spec={"state": "Retired"})
    with pytest.raises(ApiError, match="does not come back"):
        kubernetes.change("SendingIP", "ip-1", spec={"state": "Active"})


def test_what_is_not_said_has_its_default(kubernetes: Kubernetes) -> None:
    found = kubernetes.create("SenderPool", "tx", spec={"egress": EGRESS, "sources": [{"name": "ip-1"}]})["spec"]
    assert found["scaling"] == {
        "mode": "Reputation", "minLanes": 1, "maxLanes": 4, "messagesPerSecondPerLane": 100, "targetSeconds": 300,
        "cooldownSeconds": 300, "spareAfterSeconds": 30, "releaseAfterSeconds": 604800,
    }  # fmt: skip
    assert found["sources"] == [{"name": "ip-1", "weight": 100}]
    assert found["preflight"] == {"requirePTR": True, "intervalSeconds": 300}


def test_the_defaults_of_the_code_are_those_of_the_resource_types(kubernetes: Kubernetes) -> None:
    found = kubernetes.create("SenderPool", "tx", spec={"egress": EGRESS})["spec"]
    assert msgspec.convert(found, PoolSpec) == msgspec.convert({"egress": EGRESS}, PoolSpec)


def table(kubernetes: Kubernetes, plural: str) -> tuple[list[str], list[list[Any]]]:
    """As kubectl asks for it."""
    server = json.loads(Path(kubernetes.kubeconfig).read_text())["clusters"][0]["cluster"]["server"]
    request = urllib.request.Request(
        f"{server}/apis/mailfleet.dev/v1alpha1/namespaces/{kubernetes.namespace}/{plural}",
        headers={"Authorization": f"Bearer {ADMIN}", "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
    )
    with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as answer:
        found = json.loads(answer.read())
    return [each["name"] for each in found["columnDefinitions"]], [row["cells"] for row in found["rows"]]


def test_kubectl_get_reads_like_a_dashboard(kubernetes: Kubernetes) -> None:
    kubernetes.create("SenderPool", "tx", spec={"egress": EGRESS})
    kubernetes.create("SendingIP", "ip-1", spec=HERE)
    pools, rows = table(kubernetes, "senderpools")
    assert pools == ["Name", "Egress", "Sources", "Senders", "Waiting", "Score", "Limited", "Status", "Age", "Message"]
    assert rows[0][:2] == ["tx", "PodNetwork"]
    addresses, _ = table(kubernetes, "sendingips")
    assert addresses == [
        "Name", "Address", "Pool", "State", "Score", "Lanes", "Today", "Ready", "Reason", "Age", "Hostname", "Message",
    ]  # fmt: skip
