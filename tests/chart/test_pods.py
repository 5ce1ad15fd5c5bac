"""What holds for every pod of the chart, with every values file."""

from __future__ import annotations

import re

import pytest

from support.helm_chart import LONG_LIVED, PodShape, objects, pods

pytestmark = pytest.mark.cluster
EGRESS = "mailfleet-egress"


def shapes(case: str) -> list[PodShape]:
    found = list(pods(objects(case)))
    assert found
    return found


def test_helm_test_has_a_pod_that_hands_in_a_mail(case: str) -> None:
    (tests,) = [pod for pod in shapes(case) if pod.kind == "Pod"]
    assert tests.metadata["annotations"]["helm.sh/hook"] == "test"
    assert "send" in tests.containers[0]["args"]


def test_every_pod_is_restricted(case: str) -> None:
    for pod in shapes(case):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.owner
        assert context["runAsUser"] == context["runAsGroup"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostPID", "hostIPC"} & set(pod.spec)
        assert not [volume for volume in pod.spec["volumes"] if "hostPath" in volume]
        for container in pod.containers:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_hosts_network_is_used_in_the_egress_namespace_alone(case: str) -> None:
    for pod in shapes(case):
        host_ports = [port for container in pod.containers for port in container.get("ports", []) if "hostPort" in port]
        if pod.namespace != EGRESS:
            assert "hostNetwork" not in pod.spec, pod.owner
            assert not host_ports


def test_only_what_talks_to_the_api_server_has_a_token(case: str) -> None:
    for pod in shapes(case):
        allowed = pod.owner in ("mailfleet-operator", "mailfleet-crds")
        assert pod.spec["automountServiceAccountToken"] is allowed, pod.owner
        assert pod.spec["enableServiceLinks"] is False


def test_every_container_has_requests_and_limits(case: str) -> None:
    for pod in shapes(case):
        for container in pod.containers:
            for side in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][side]), pod.owner


def test_every_container_that_stays_is_probed(case: str) -> None:
    for pod in shapes(case):
        for container in pod.containers:
            probes = {"startupProbe", "livenessProbe", "readinessProbe"}
            assert (probes <= set(container)) == (pod.kind in LONG_LIVED), pod.owner
            if pod.kind in LONG_LIVED:
                assert container["livenessProbe"] != container["readinessProbe"]


def test_no_image_floats(case: str) -> None:
    for pod in shapes(case):
        for container in pod.containers:
            assert re.search(r"(:[0-9][\w.-]*|@sha256:[0-9a-f]{64})$", container["image"]), container["image"]
            assert not container["image"].endswith(":latest")


def test_pods_that_read_settings_are_made_anew_when_they_change(case: str) -> None:
    for pod in shapes(case):
        if pod.kind in LONG_LIVED:
            assert "checksum/settings" in pod.metadata["annotations"], pod.owner


def test_a_stop_has_more_time_than_a_service_takes_to_drain(case: str) -> None:
    for pod in shapes(case):
        if pod.kind in LONG_LIVED and pod.owner != "mailfleet-operator":
            assert pod.spec["terminationGracePeriodSeconds"] > 30, pod.owner


def test_every_mount_has_its_volume_and_every_volume_its_mount(case: str) -> None:
    for pod in shapes(case):
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        claims = [
            claim["metadata"]["name"]
            for each in objects(case)
            if each["kind"] == "StatefulSet" and each["metadata"]["name"] == pod.owner
            for claim in each["spec"].get("volumeClaimTemplates", [])
        ]
        mounted = [mount["name"] for container in pod.containers for mount in container["volumeMounts"]]
        assert sorted(volumes + claims) == sorted(mounted), pod.owner
        paths = [mount["mountPath"] for container in pod.containers for mount in container["volumeMounts"]]
        assert not [path for path in paths if any(path.startswith(other + "/") for other in paths)], (
            "mounts are not nested"
        )


def test_the_version_of_the_chart_selects_nothing(case: str) -> None:
    for each in objects(case):
        selector = each.get("spec", {}).get("selector", {}) if each["kind"] != "Issuer" else {}
        labels = selector.get("matchLabels", selector)
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels), each["metadata"]["name"]


def test_a_network_policy_holds_for_every_pod_without_the_hosts_network(case: str) -> None:
    policies = [
        (each["metadata"]["namespace"], each["spec"]["podSelector"]["matchLabels"])
        for each in objects(case)
        if each["kind"] == "NetworkPolicy"
    ]
    for pod in shapes(case):
        if not pod.spec.get("hostNetwork"):
            labels = pod.metadata["labels"].items()
            assert [1 for space, wanted in policies if space == pod.namespace and wanted.items() <= labels], pod.owner
