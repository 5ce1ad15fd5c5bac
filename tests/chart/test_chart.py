"""The chart as a chart: lint, its own template tests, values that are refused, a second rendering."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from support.helm_chart import CHART, helm, objects, text_of, tool

pytestmark = pytest.mark.cluster
DEFAULT = ["-f", str(CHART / "ci" / "default-values.yaml")]


def test_lint_finds_nothing(case: str) -> None:
    done = helm("lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{case}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_templates_pass_their_own_tests() -> None:
    done = subprocess.run([tool("helm-unittest"), "--strict", "-f", "tests/*_test.yaml", str(CHART)],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"Tests:\s+[1-9]", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("kafka.mode=rabbit", "kafka"),
        ("ingest.replicas=3", "replicas"),
        ("router.terminationGracePeriodSeconds=10", "terminationGracePeriodSeconds"),
        ("ingest.service.type=External", "type"),
        ("ingres.enabled=true", "ingres"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_the_schema(option: str, told: str) -> None:
    done = helm("template", "mailfleet", str(CHART), *DEFAULT, "--set", option)
    assert done.returncode != 0
    assert told in done.stderr


def test_a_second_rendering_differs_in_certificates_only(case: str) -> None:
    def calm(text: str) -> str:
        return re.sub(r"(tls\.crt|tls\.key|ca\.crt|caBundle): \S+", r"\1: …", text)

    assert calm(text_of(case)) == calm(text_of(case, "--description", "again"))


def test_names_are_short_enough_with_a_long_release_name() -> None:
    done = helm("template", "a-release-with-quite-a-long-name-of-fifty-chars-xx", str(CHART), "-n", "mail", "-f",
                str(CHART / "ci" / "everything-values.yaml"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    for each in filter(None, yaml.safe_load_all(done.stdout)):
        assert len(each["metadata"]["name"]) <= 63, each["metadata"]["name"]


def test_every_object_is_labelled_as_the_releases(case: str) -> None:
    for each in objects(case):
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] in ("more", "mailfleet-as-text"):
            continue
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "mailfleet", each["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_no_two_objects_have_the_same_name(case: str) -> None:
    keys = [
        (each["apiVersion"], each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects(case)
    ]
    assert len(keys) == len(set(keys)), sorted(key for key in keys if keys.count(key) > 1)
