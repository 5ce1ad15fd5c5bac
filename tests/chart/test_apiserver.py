"""The chart on a real API server: what it takes, what restricted admission takes, and what an upgrade changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.control_plane import ControlPlane
from support.helm_chart import CHART, Object, PodShape, objects, pods, tool

pytestmark = pytest.mark.cluster
FOREIGN = ("cert-manager.io", "kafka.strimzi.io", "monitoring.coreos.com")
RESTRICTED = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """An API server that has our resource definitions."""
    with ControlPlane() as plane:
        for path in sorted((CHART / "charts" / "crds" / "crds").glob("*.yaml")):
            plane.kubectl("apply", "--server-side", "-f", str(path))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane


@pytest.fixture
def space(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A restricted namespace of the test's own."""
    name = "t-" + str(abs(hash(request.node.name)) % 10**8)
    labelled = {
        "metadata": {"name": name, "labels": {RESTRICTED: "restricted"}},
        "apiVersion": "v1",
        "kind": "Namespace",
    }
    plane.kubectl("apply", "-f", "-", text=json.dumps(labelled))
    return name


def ours(case: str) -> list[Object]:
    """Objects of a case whose kinds this API server has."""
    return [each for each in objects(case) if not each["apiVersion"].startswith(FOREIGN)]


def test_the_api_server_takes_every_object(case: str, plane: ControlPlane) -> None:
    everything = ours(case)
    for name in {each["metadata"].get("namespace", "mail") for each in everything}:
        plane.run(tool("kubectl"), "create", "namespace", name)
    text = yaml.safe_dump_all(everything)
    plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", text=text)


def alone(number: int, shape: PodShape, space: str) -> Object:
    """A pod as its controller would make it, without what has to be there before it."""
    spec = {"restartPolicy": "Always"} | {key: part for key, part in shape.spec.items() if key != "priorityClassName"}
    meta = {"name": f"p{number}", "namespace": space, "labels": shape.metadata.get("labels", {})}
    named = {volume["name"] for volume in spec["volumes"]}
    claimed = {mount["name"] for each in shape.containers for mount in each["volumeMounts"]} - named
    spec["volumes"] = [*spec["volumes"], *({"name": name, "emptyDir": {}} for name in sorted(claimed))]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def test_restricted_admission_takes_every_pod_but_those_for_egress(case: str, plane: ControlPlane, space: str) -> None:
    shapes = {f"p{number}": shape for number, shape in enumerate(pods(objects(case)))}
    made = yaml.safe_dump_all(alone(number, shape, space) for number, shape in enumerate(shapes.values()))
    done = plane.run(tool("kubectl"), "create", "--dry-run=server", "-f", "-", text=made)
    taken = {line.split()[0].removeprefix("pod/") for line in done.stdout.splitlines()}
    refused = {name for name, shape in shapes.items() if shape.spec.get("hostNetwork")}
    assert taken == set(shapes) - refused, done.stderr
    assert (
        done.stderr.count("violates PodSecurity") == len(refused) == (1 if case in ("egressproxy", "everything") else 0)
    )


def release(plane: ControlPlane, space: str, verb: str, *more: str) -> None:
    done = plane.run(
        tool("helm"), verb, "mailfleet", str(CHART), "-n", space, "--no-hooks", "--skip-crds",
        "-f", str(CHART / "ci" / "default-values.yaml"), *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def stored(plane: ControlPlane, space: str, kind: str, name: str) -> Any:
    return json.loads(plane.kubectl("-n", space, "get", kind, name, "-o", "json"))


def test_an_upgrade_keeps_the_certificates_that_the_install_made(plane: ControlPlane, space: str) -> None:
    release(plane, space, "install")
    names = ("mailfleet-webhook", "mailfleet-ingest-tls")
    before = {name: stored(plane, space, "secret", name)["data"] for name in names}
    release(plane, space, "upgrade", "--set", "router.replicaCount=3")
    assert {name: stored(plane, space, "secret", name)["data"] for name in names} == before
    assert stored(plane, space, "statefulset", "mailfleet-router")["spec"]["replicas"] == 3
    hook = stored(plane, space, "validatingwebhookconfiguration", f"mailfleet-{space}")["webhooks"][0]
    assert hook["clientConfig"]["caBundle"] == before["mailfleet-webhook"]["ca.crt"]


def test_an_upgrade_leaves_alone_what_was_scaled_by_hand(plane: ControlPlane, space: str) -> None:
    release(plane, space, "install", "--set", "ingest.autoscaling.enabled=true")
    plane.kubectl("-n", space, "scale", "deployment", "mailfleet-ingest", "--replicas=7")
    release(plane, space, "upgrade", "--set", "ingest.autoscaling.enabled=true", "--set", "hostname=mail.example.org")
    assert stored(plane, space, "deployment", "mailfleet-ingest")["spec"]["replicas"] == 7


def test_uninstalling_leaves_no_object_of_the_release_but_what_holds_mail(plane: ControlPlane, space: str) -> None:
    release(plane, space, "install")
    done = plane.run(tool("helm"), "uninstall", "mailfleet", "-n", space, "--no-hooks")
    assert done.returncode == 0, done.stderr
    left = plane.kubectl(
        "-n", space, "get", "deployments,statefulsets,services,configmaps,secrets,senderpools,roles,networkpolicies",
        "-l", "app.kubernetes.io/instance=mailfleet", "-o", "name",
    )  # fmt: skip
    assert left == ""


def test_the_operator_may_do_its_work_and_nothing_else(plane: ControlPlane, space: str) -> None:
    release(plane, space, "install")
    who = f"system:serviceaccount:{space}:mailfleet-operator"

    def may(verb: str, what: str, *more: str) -> bool:
        done = plane.run(tool("kubectl"), "auth", "can-i", verb, what, "--as", who, "-n", space, *more)
        return done.stdout.strip() == "yes"

    assert may("watch", "senderpools.mailfleet.dev")
    assert may("patch", "sendingips.mailfleet.dev", "--subresource=status")
    assert may("create", "deployments.apps")
    assert may("patch", "configmaps/mailfleet-policy")
    assert may("update", "leases.coordination.k8s.io/mailfleet-operator")
    for verb, what in (
        ("get", "secrets"), ("create", "pods"), ("delete", "pods"), ("patch", "configmaps/mailfleet-settings"),
        ("patch", "senderpools.mailfleet.dev"), ("create", "clusterroles"), ("update", "leases.coordination.k8s.io/other"),
    ):  # fmt: skip
        assert not may(verb, what), (verb, what)
    elsewhere = plane.run(tool("kubectl"), "auth", "can-i", "create", "deployments.apps", "--as", who, "-n", "default")
    assert elsewhere.stdout.strip() == "no"
