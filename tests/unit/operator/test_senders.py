"""The children of pools: equal specs give equal objects, all of them owned, labelled and restricted."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest

from mailfleet_operator.decisions import senders
from mailfleet_operator.decisions.resources import Address, AddressSpec, Pool, PoolSpec
from mailfleet_operator.decisions.senders import (
    Place,
    TemplateError,
    checked_template,
    deployment,
    gateway_policy,
    name_of,
)

PLACE = Place("mail", "mail-egress", "mailfleet")
TEMPLATE: dict[str, Any] = {
    "metadata": {"annotations": {"checksum/settings": "abc"}},
    "spec": {
        "containers": [
            {
                "name": "sender",
                "image": "mailfleet:1",
                "args": ["-m", "mailfleet_sender", "--http", "0.0.0.0:8080"],
                "env": [{"name": "POD_NAME", "value": "x"}, {"name": senders.LANES_VARIABLE, "value": "99"}],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"port": 8080}},
            }
        ],
        "nodeSelector": {"disk": "ssd"},
    },
}
HERE = Address(
    "ip-1", "mail", "u2", 1, 0.0, AddressSpec(hostname="mx1.example.org", address="192.0.2.1", node_name="node-7")
)


def pool(**egress: Any) -> Pool:
    spec = {"egress": {"mode": "PodNetwork", **egress}, "sources": [{"name": "ip-1"}]}
    return Pool("tx", "mail", "u1", 1, 0.0, msgspec.convert(spec, PoolSpec))


def made(of: Pool) -> dict[str, Any]:
    return deployment(PLACE, TEMPLATE, of, HERE, "ip-1", 3)


def pod(of: Pool) -> dict[str, Any]:
    spec: dict[str, Any] = made(of)["spec"]["template"]["spec"]
    return spec


def test_one_replica_of_one_lane_that_is_never_there_twice() -> None:
    found = made(pool())
    assert found["metadata"]["name"] == "mailfleet-ip-1-3"
    assert (found["spec"]["replicas"], found["spec"]["strategy"]) == (1, {"type": "Recreate"})
    env = found["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [each["value"] for each in env if each["name"] == senders.LANES_VARIABLE] == ["3"]


def test_every_child_is_owned_and_labelled() -> None:
    found = made(pool())
    wanted = {"mailfleet.dev/pool": "tx", "mailfleet.dev/source": "ip-1", "mailfleet.dev/lane": "3"}
    assert wanted.items() <= found["metadata"]["labels"].items()
    assert wanted.items() <= found["spec"]["template"]["metadata"]["labels"].items()
    assert found["spec"]["selector"]["matchLabels"].items() <= wanted.items()
    assert [(each["kind"], each["name"], each["controller"]) for each in found["metadata"]["ownerReferences"]] == [
        ("SenderPool", "tx", True)
    ]


def test_equal_specs_give_equal_objects_and_the_template_stays_as_it_was() -> None:
    before = copy.deepcopy(TEMPLATE)
    assert made(pool(mode="HostNetwork")) == made(pool(mode="HostNetwork"))
    assert before == TEMPLATE


def test_a_restricted_namespace_admits_it() -> None:
    spec = pod(pool())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "hostNetwork" not in spec


def test_with_the_hosts_network_it_has_a_namespace_of_its_own_and_no_owner_there() -> None:
    of = pool(mode="HostNetwork", hostNetwork={"nodeSelector": {"egress": "true"}})
    found, spec = made(of), pod(of)
    assert found["metadata"]["namespace"] == "mail-egress"
    assert "ownerReferences" not in found["metadata"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert spec["nodeSelector"] == {"disk": "ssd", "egress": "true", "kubernetes.io/hostname": "node-7"}
    container = spec["containers"][0]
    assert "ports" not in container
    assert "readinessProbe" not in container
    assert container["args"][-1] == "0.0.0.0:0"


def test_a_proxys_password_is_mounted() -> None:
    spec = pod(pool(mode="EgressProxy", proxy={"endpoints": ["p:1080"], "authSecretRef": {"name": "egress"}}))
    assert {"name": "egress-proxy", "secret": {"secretName": "egress"}} in spec["volumes"]
    assert spec["containers"][0]["volumeMounts"][0]["mountPath"] == senders.PROXY_DIRECTORY


def test_multus_is_told_which_address_the_pod_gets() -> None:
    second = {"networkRef": {"name": "mail-vlan"}, "prefixLength": 28, "gateway": "192.0.2.14"}
    found = made(pool(mode="SecondaryNetwork", secondaryNetwork=second))["spec"]["template"]["metadata"]["annotations"]
    assert json.loads(found["k8s.v1.cni.cncf.io/networks"]) == [
        {
            "name": "mail-vlan",
            "namespace": "mail",
            "interface": "net1",
            "ips": ["192.0.2.1/28"],
            "gateway": ["192.0.2.14"],
        }
    ]


def test_cilium_is_told_which_pods_leave_by_which_address() -> None:
    gateway = {"nodeSelector": {"egress": "true"}, "excludedCIDRs": ["10.0.0.0/8"]}
    spec = gateway_policy(PLACE, pool(mode="EgressGateway", gateway=gateway), HERE)["spec"]
    assert spec["egressGateway"] == {"nodeSelector": {"matchLabels": {"egress": "true"}}, "egressIP": "192.0.2.1"}
    assert spec["selectors"][0]["podSelector"]["matchLabels"]["mailfleet.dev/source"] == "ip-1"
    assert spec["excludedCIDRs"] == ["10.0.0.0/8"]


def test_the_pools_template_goes_over_that_of_the_installation() -> None:
    own = {"terminationGracePeriodSeconds": 330, "env": [{"name": "X", "value": "1"}], "labels": {"team": "mail"}}
    of = msgspec.structs.replace(pool(), spec=msgspec.structs.replace(pool().spec, template=own))
    found = made(of)["spec"]["template"]
    assert found["spec"]["terminationGracePeriodSeconds"] == 330
    assert {"name": "X", "value": "1"} in found["spec"]["containers"][0]["env"]
    assert found["metadata"]["labels"]["team"] == "mail"
    assert found["metadata"]["annotations"] == {"checksum/settings": "abc"}


def test_names_of_lanes_differ_also_when_they_are_cut() -> None:
    long = "x" * 80
    assert name_of(PLACE, long, 1) != name_of(PLACE, long, 11)
    assert len(name_of(PLACE, long, 4000)) <= 63


@pytest.mark.parametrize("template", [None, {}, {"spec": {}}, {"spec": {"containers": [{"name": "other"}]}}])
def test_a_template_without_a_sender_is_refused(template: object) -> None:
    with pytest.raises(TemplateError):
        checked_template(template)
