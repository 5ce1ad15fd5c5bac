"""Dashboards: what is committed is what the code makes, Grafana can place it, and every metric in it exists."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from mailfleet_core import metrics
from mailfleet_monitoring import expressions, grafana
from mailfleet_monitoring.__main__ import DIRECTORY, files, stale
from mailfleet_monitoring.dashboards import DASHBOARDS

OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
"""What prometheus_client tells of every process."""
BY = re.compile(r"\b(?:by|without) \(([^)]*)\)")
LEGEND = re.compile(r"\{\{(\w+)\}\}")


@cache
def exported() -> set[str]:
    """Names of all series that our programs tell, and of what rules record."""
    names = set(OF_THE_CLIENT)
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            described = next(iter(metric.describe()))
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(described.type, ("",))
            names |= {described.name + suffix for suffix in suffixes}
    return names | {rule["record"] for rule in expressions.rules() if "record" in rule}


@cache
def labels_of(name: str) -> set[str]:
    """The labels of an exported metric, with those that a target has."""
    targets = {"namespace", "pod", "component", "le"}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and name.startswith(next(iter(metric.describe())).name):
            return targets | set(metric._labelnames)
    return targets


ASKED = [*expressions.of_dashboards(), *expressions.of_rules()]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_every_metric_of_an_expression_is_exported(asked: expressions.Asked) -> None:
    assert asked.metrics, asked.expr
    assert asked.metrics <= exported()


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_sums_are_over_labels_that_the_metrics_have(asked: expressions.Asked) -> None:
    recorded = {label for name in asked.metrics if ":" in name for label in name.split(":")[0].split("_")}
    known = {label for name in asked.metrics for label in labels_of(name)} | recorded
    used = {label.strip() for group in BY.findall(asked.expr) for label in group.split(",")}
    assert used <= known


def test_what_is_committed_is_what_the_code_makes() -> None:
    assert stale(DIRECTORY) == [], "run `make dashboards`"


def test_a_file_that_the_code_does_not_make_is_stale(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert stale(tmp_path) == []
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "sites.json").write_text("{}")
    assert stale(tmp_path) == ["old.json", "sites.json"]


@cache
def documents() -> list[dict[str, Any]]:
    return [json.loads(text) for text in files().values()]


def test_uids_and_titles_are_unique_and_short() -> None:
    found = documents()
    assert len({each["uid"] for each in found}) == len({each["title"] for each in found}) == len(DASHBOARDS)
    assert all(len(each["uid"]) <= 40 for each in found)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["uid"])
def test_panels_have_ids_of_their_own_and_do_not_overlap(document: dict[str, Any]) -> None:
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        fields = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not fields & taken, panel["title"]
        assert place["x"] + place["w"] <= grafana.WIDTH
        taken |= fields


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["uid"])
def test_any_prometheus_can_be_chosen_and_nothing_names_one(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {document["uid"], "${datasource}"}
    assert "__inputs" not in document
    assert "id" not in document


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_panels_say_what_they_show_in_which_unit_and_for_which_installation(dashboard: Any) -> None:
    for panel in dashboard.panels:
        assert panel.unit, panel.title
        assert panel.about.endswith("."), panel.title
        for expr in panel.queries.values():
            assert expr.count("mailfleet_") <= expr.count('namespace=~"$namespace"') + 2 * expr.count(":mailfleet_"), (
                expr
            )


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_legends_and_columns_show_labels_that_the_query_keeps(dashboard: Any) -> None:
    for panel in dashboard.panels:
        for legend, expr in panel.queries.items():
            kept = {label.strip() for group in BY.findall(expr) for label in group.split(",")}
            assert set(LEGEND.findall(legend)) <= kept, panel.title
            assert set(panel.columns) <= kept, panel.title


def test_every_variable_is_used() -> None:
    for dashboard in DASHBOARDS:
        text = " ".join(expr for panel in dashboard.panels for expr in panel.queries.values())
        assert [each.name for each in dashboard.variables if f"${each.name}" not in text] == []


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        ("a > 0", "a > bool 0"),
        ('min by (x) (m{a!="b"}) == 0', 'min by (x) (m{a!="b"}) == bool 0'),
        ('a{x=~"y"} >= 1\nand b != 2', 'a{x=~"y"} >= bool 1\nand b != bool 2'),
        ("a * 0\nunless b", "a * 0\nand b"),
        ('sum(m{a!~"x|y", b="=="}) < 1', 'sum(m{a!~"x|y", b="=="}) < bool 1'),
    ],
)
def test_comparisons_can_be_made_to_count(expr: str, wanted: str) -> None:
    assert expressions.counted(expr) == wanted


def test_variables_are_filled_in_as_grafana_does() -> None:
    expr = 'rate(m{site=~"$site", namespace=~"$namespace"}[$__rate_interval])'
    values = {"site": "google", "namespace": ".*"}
    assert expressions.filled(expr, values, "10s") == 'rate(m{site=~"google", namespace=~".*"}[10s])'
