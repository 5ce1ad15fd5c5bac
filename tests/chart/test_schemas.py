"""Every object of the chart is one that Kubernetes, and our own resource definitions, know."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from support import kube_schemas
from support.helm_chart import CASES, objects, text_of, tool

pytestmark = pytest.mark.cluster
OTHERS = {
    "Certificate", "Issuer", "Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser", "PodMonitor", "PrometheusRule",
    "ServiceMonitor",
}  # fmt: skip
"""Of cert-manager, Strimzi and the Prometheus operator, whose schemas we do not have."""


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of them."""
    directory = tmp_path_factory.mktemp("schemas")
    kinds = {(each["apiVersion"], each["kind"]) for case in CASES for each in objects(case)}
    kube_schemas.write(directory, kinds | {("apps/v1", "Deployment")})
    return directory


def conform(schemas: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("kubeconform"), "-strict", "-summary", "-skip", ",".join(sorted(OTHERS)),
         "-schema-location", f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"],
        input=text, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_object_is_as_its_schema_says(case: str, schemas: Path) -> None:
    done = conform(schemas, text_of(case))
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = sum(each["kind"] in OTHERS for each in objects(case))
    assert f"Skipped: {skipped}" in done.stdout


def test_a_field_that_does_not_exist_is_found(schemas: Path) -> None:
    wrong = next(each for each in objects("default") if each["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Never"
    assert conform(schemas, yaml.safe_dump(wrong)).returncode != 0
    pool = next(each for each in objects("hostnetwork") if each["kind"] == "SenderPool")
    pool["spec"]["egress"] = {"mode": "Pigeon"}
    assert conform(schemas, yaml.safe_dump(pool)).returncode != 0


def test_a_senders_template_is_a_pods(schemas: Path) -> None:
    deployment = next(each for each in objects("default") if each["kind"] == "Deployment")
    template = next(
        each["data"]["sender.yaml"]
        for each in objects("default")
        if each["kind"] == "ConfigMap" and "sender.yaml" in each["data"]
    )
    deployment["spec"]["template"] = yaml.safe_load(template)
    done = conform(schemas, yaml.safe_dump(deployment))
    assert done.returncode == 0, done.stdout
