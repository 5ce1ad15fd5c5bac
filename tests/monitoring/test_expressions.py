"""Every expression of every dashboard and rule returns data from a real Prometheus that looks at a running Mailfleet."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mailfleet_monitoring import expressions
from mailfleet_monitoring.dashboards import DASHBOARDS
from mailfleet_monitoring.expressions import Asked
from mailfleet_monitoring.panels import Dashboard
from mailfleet_monitoring.preview import Window, page
from support import needs
from support.prometheus import Prometheus, prometheus
from support.watched import Watched, until, watched

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 80.0
"""Fairness is told of tenants that had mail ready for a minute."""
PER_SECOND = 12.0
INTERVAL = "30s"
PATIENCE_SECONDS = 60.0
"""A busy machine is slow, not wrong."""

LATER = {
    "mailfleet_operator_": "needs the operator",
    "mailfleet_egress_": "needs an egress proxy",
}
"""Beginnings of metrics that only a cluster has, and why. tests/cluster asks for these."""


def later(asked: Asked) -> bool:
    """Can only a cluster answer this?"""
    return any(name.startswith(begin) for name in asked.metrics for begin in LATER)


VARIABLES = {name: ".*" for dashboard in DASHBOARDS for name in expressions.chosen(dashboard)}
ASKED = [*expressions.of_dashboards(), *expressions.of_rules()]
HERE = [asked for asked in ASKED if not later(asked)]
IN_A_CLUSTER = [asked for asked in ASKED if later(asked)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Watched]]:
    """A Mailfleet that had mail for a while, and who looked at it."""
    needs.need("prometheus", "openssl")
    directory = tmp_path_factory.mktemp("watched")
    rules = sorted(expressions.RULES.glob("*.yaml"))
    with (
        watched(directory) as running,
        prometheus(directory / "prometheus", running.targets(), rules, every_seconds=2.0) as looking,
        running.load(PER_SECOND),
    ):
        until(looking.up, len(running.targets()))
        running.flood()
        time.sleep(SECONDS)
        yield looking, running


def asked_as(asked: Asked) -> str:
    expr = expressions.counted(expressions.filled(asked.expr, VARIABLES, INTERVAL))
    return expr.replace("offset 10m", "offset 10s")


@pytest.mark.parametrize("asked", HERE, ids=lambda asked: asked.where)
def test_it_returns_data(scene: tuple[Prometheus, Watched], asked: Asked) -> None:
    looking, running = scene
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := looking.query(asked_as(asked))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found, running.fleet.logs(300)


@pytest.mark.parametrize("asked", IN_A_CLUSTER, ids=lambda asked: asked.where)
def test_what_is_left_to_the_cluster_cannot_be_had_here(scene: tuple[Prometheus, Watched], asked: Asked) -> None:
    looking, _ = scene
    told = [sample for sample in looking.query(asked_as(asked)) if sample.value > 0 and sample.value == sample.value]
    assert told == [], "it can be asked for here"


def test_prometheus_evaluates_all_rules(scene: tuple[Prometheus, Watched]) -> None:
    looking, _ = scene
    broken = [f"{rule['name']}: {rule.get('lastError')}" for rule in looking.rules() if rule["health"] != "ok"]
    assert broken == []
    assert len(looking.rules()) == len(expressions.rules())


def test_nothing_that_pages_somebody_fires_while_all_is_well(scene: tuple[Prometheus, Watched]) -> None:
    looking, _ = scene
    firing = looking.query('ALERTS{alertstate=~"firing|pending", severity="critical"}')
    assert [dict(sample.labels) for sample in firing] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_dashboards_can_be_drawn_without_grafana(scene: tuple[Prometheus, Watched], dashboard: Dashboard) -> None:
    looking, _ = scene
    now = time.time()
    html = page(dashboard, Window(looking.url, now - 90, now, INTERVAL))
    assert all(f"<h3>{panel.title}</h3>" in html for panel in dashboard.panels)
    here = [panel for panel in dashboard.panels if not any(later(Asked("", expr)) for expr in panel.queries.values())]
    # A share of nothing (a minute without mail) is no number.
    assert len(dashboard.panels) - html.count("No data") >= len(here) * 0.7


def test_the_counts_are_those_of_the_mail(scene: tuple[Prometheus, Watched]) -> None:
    """Sums over sites, over sources and over verdicts count the same recipients."""
    looking, _ = scene
    at = time.time() - 8
    totals = [
        looking.query(f"sum({metric}{{verdict=~'delivered|deferred|bounced'}})", at)[0].value
        for metric in (
            "mailfleet_site_recipients_total",
            "mailfleet_source_recipients_total",
            "mailfleet_recipients_total",
        )
    ]
    assert totals[0] == totals[1] > 100
    assert totals[2] == pytest.approx(totals[0], rel=0.15), "the former are told every 5 s"
