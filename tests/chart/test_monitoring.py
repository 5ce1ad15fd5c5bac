"""What the chart gives to Prometheus and Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mailfleet_monitoring import expressions
from mailfleet_monitoring.__main__ import files
from mailfleet_operator.decisions import senders
from support import needs
from support.helm_chart import CHART, helm
from support.needs import program
from support.processes import run

pytestmark = pytest.mark.cluster
ALL = ("serviceMonitor", "podMonitor", "prometheusRule", "dashboards")


def rendered(case: str, *options: str, parts: tuple[str, ...] = ALL) -> list[dict[str, Any]]:
    """The objects for monitoring, by a values file and `--set` options."""
    wanted = [f"monitoring.{part}.enabled={'true' if part in parts else 'false'}" for part in ALL]
    sets = [word for option in (*wanted, *options) for word in ("--set", option)]
    done = helm(
        "template", "mailfleet", str(CHART), "-n", "mail", "-f", str(CHART / "ci" / f"{case}-values.yaml"), *sets
    )
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    return [
        each for each in found if each["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "monitoring"
    ]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def test_dashboards_arrive_as_they_are_with_the_label_that_the_sidecar_wants() -> None:
    maps = [each for each in rendered("default") if each["kind"] == "ConfigMap"]
    assert {name: text for each in maps for name, text in each["data"].items()} == {
        f"mailfleet-{name}": text for name, text in files().items()
    }
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in maps} == {"1"}
    assert {each["metadata"]["annotations"]["grafana_folder"] for each in maps} == {"Mailfleet"}


def rules(*options: str) -> list[dict[str, Any]]:
    spec = one(rendered("default", *options), "PrometheusRule")["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def test_all_rules_arrive_and_alerts_name_their_runbooks() -> None:
    found = rules("monitoring.prometheusRule.runbookBaseUrl=https://wiki.test/")
    assert [rule["expr"] for rule in found] == [rule["expr"] for rule in expressions.rules()]
    for rule in found:
        wanted = f"https://wiki.test/{rule['alert']}.md" if "alert" in rule else None
        assert rule.get("annotations", {}).get("runbook_url") == wanted


def test_rules_that_are_left_out_are_left_out_and_labels_are_added() -> None:
    found = rules(
        "monitoring.prometheusRule.excludeRules={MailfleetDown,MailfleetScalingLimited}",
        "monitoring.prometheusRule.alertLabels.team=post",
    )
    names = {rule["alert"] for rule in expressions.rules() if "alert" in rule}
    assert {rule["alert"] for rule in found if "alert" in rule} == names - {"MailfleetDown", "MailfleetScalingLimited"}
    assert {rule["labels"]["team"] for rule in found if "alert" in rule} == {"post"}
    assert all(rule["labels"]["severity"] for rule in found if "alert" in rule)


def test_prometheus_takes_the_rendered_rules(tmp_path: Path) -> None:
    needs.need("promtool")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(one(rendered("default"), "PrometheusRule")["spec"]))
    run([str(program("promtool")), "check", "rules", str(file)])


def test_the_pod_monitor_finds_the_senders_that_the_operator_makes() -> None:
    spec = one(rendered("default"), "PodMonitor")["spec"]
    labels = senders.labels("bulk", "ip-1", 3)
    assert [each["key"] for each in spec["selector"]["matchExpressions"]] == [senders.POOL_LABEL]
    assert spec["selector"]["matchLabels"]["app.kubernetes.io/component"] == senders.CONTAINER
    assert set(spec["podTargetLabels"]) <= labels.keys()


def component(endpoint: dict[str, Any]) -> str:
    (rule,) = [each for each in endpoint["relabelings"] if each["targetLabel"] == "component"]
    return str(rule.get("replacement") or rule["sourceLabels"][0])


def test_what_is_scraped_says_which_component_it_is() -> None:
    objects = rendered("default")
    endpoints = [
        *one(objects, "ServiceMonitor")["spec"]["endpoints"],
        *one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"],
    ]
    assert {component(each) for each in endpoints} == {"__meta_kubernetes_pod_label_app_kubernetes_io_component"}


def test_one_pod_with_three_services_is_scraped_as_three() -> None:
    endpoints = one(rendered("embedded"), "ServiceMonitor")["spec"]["endpoints"]
    assert {each["port"]: component(each) for each in endpoints} == {
        "http": "ingest", "http-router": "router", "http-sender": "sender",
    }  # fmt: skip


def test_nothing_is_rendered_unless_it_is_switched_on() -> None:
    assert rendered("default", parts=()) == []
    assert {each["kind"] for each in rendered("default", parts=("podMonitor",))} == {"PodMonitor"}
