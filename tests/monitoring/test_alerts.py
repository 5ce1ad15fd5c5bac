"""Every alert fires when it should and is silent when it should be: promtool evaluates the rules over made series."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailfleet_monitoring import expressions
from support import needs
from support.needs import program
from support.processes import run

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks"
RECORDING = [group["name"] for group in yaml.safe_load((expressions.RULES / "recording.yaml").read_text())["groups"]]
ALERTS = [rule for rule in expressions.rules() if "alert" in rule]
NS = 'namespace="mail"'
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """What is seen, step by step, and whether the alert fires at `at`."""

    alert: str
    what: str
    series: Series
    at: str
    fires: bool
    labels: dict[str, str] = field(default_factory=dict)
    """Of the alert that fires (or does not)."""
    step: str = "1m"
    """Between two values."""
    every: str = "1m"
    """Between two evaluations."""


def refusals(bad: int, good: int, minutes: int, reason: str = "overloaded") -> Series:
    return {
        f'mailfleet_rejections_total{{{NS}, code="452", reason="{reason}"}}': f"0+{bad}x{minutes}",
        f'mailfleet_rejections_total{{{NS}, code="421", reason="trouble"}}': f"0x{minutes}",
        f"mailfleet_ingest_durable_seconds_count{{{NS}}}": f"0+{good}x{minutes}",
    }


def durable(quick: int, slow: int) -> Series:
    bucket = f"mailfleet_ingest_durable_seconds_bucket{{{NS}"
    return {
        f'{bucket}, le="1.0"}}': f"0+{quick}x40",
        f'{bucket}, le="2.5"}}': f"0+{quick}x40",
        f'{bucket}, le="5.0"}}': f"0+{quick + slow}x40",
        f'{bucket}, le="+Inf"}}': f"0+{quick + slow}x40",
    }


def outcomes(metric: str, label: str, good: int, bad: int, verdict: str) -> Series:
    series = f'mailfleet_{metric}_recipients_total{{{NS}, {label}="x", verdict='
    return {f'{series}"delivered"}}': f"0+{good}x120", f'{series}"{verdict}"}}': f"0+{bad}x120"}


OVERDUE = f'mailfleet_audit_overdue_recipients{{{NS}, pod="router-0"}}'
PARTITIONS = f'mailfleet_queue_partitions{{{NS}, pod="router-0"}}'
LIVE = f"mailfleet_router_partitions_live{{{NS}, pod="
HEALTHY = f"mailfleet_bus_healthy{{{NS}, component="
LAG = f'mailfleet_log_lag{{{NS}, group="senders", topic="mail.dispatch", pod='
STATE = f'mailfleet_source_state{{{NS}, source="ip-1"}}'
READY = f'mailfleet_pool_units{{{NS}, pool="bulk", state="ready"}}'
OLDEST = f'mailfleet_pool_oldest_ready_seconds{{{NS}, pool="bulk"}}'
COMPLAINTS = f'mailfleet_tenant_complaint_ratio{{{NS}, tenant="acme"}}'
LEADING = f'mailfleet_operator_leading{{{NS}, component="operator", pod='
CHECK = f'mailfleet_operator_source_check{{{NS}, source="ip-1", check='
SEEN = f'mailfleet_egress_ip_mismatch_total{{{NS}, source="ip-1", expected="a", seen="b"}}'
LIMITED = f'mailfleet_operator_scaling_limited{{{NS}, pool="bulk", reason="Reputation"}}'
FAILED = f'mailfleet_operator_reconciles_total{{{NS}, kind="SenderPool", outcome='
DUPLICATES = f'mailfleet_possible_duplicates_total{{{NS}, pod="router-0"}}'
HEARD = f"mailfleet_fleet_partitions{{{NS}}}"
BURN = "MailfleetIngestErrorBudgetBurn"

CASES = [
    Case("MailfleetAuditOverdue", "some for six minutes", {OVERDUE: "0x5 3x20"}, "12m", True),
    Case("MailfleetAuditOverdue", "some for a moment", {OVERDUE: "0x5 3 3 0x20"}, "12m", False),
    Case(BURN, "9 % in an hour", refusals(60, 600, 120), "65m", True, {"window": "1h"}),
    Case(BURN, "9 % that clients did", refusals(60, 600, 120, "syntax"), "65m", False),
    Case(BURN, "0.8 % in seven hours", refusals(8, 992, 420), "7h", True, {"window": "6h"}, "1m", "10m"),
    Case(BURN, "0.8 % is no matter of one hour", refusals(8, 992, 420), "7h", False, {"window": "1h"}, "1m", "10m"),
    Case(BURN, "0.2 % in three days", refusals(2, 998, 440), "73h", True, {"window": "3d"}, "10m", "30m"),
    Case(BURN, "0.2 % is no matter of six hours", refusals(2, 998, 440), "73h", False, {"window": "6h"}, "10m", "30m"),
    Case(BURN, "0.05 %", refusals(1, 1999, 440), "73h", False, {}, "10m", "30m"),
    Case(BURN, "nothing is taken at all", refusals(5, 0, 120), "65m", True, {"window": "1h"}),
    Case("MailfleetIngestSlow", "one in ten takes seconds", durable(90, 10), "30m", True),
    Case("MailfleetIngestSlow", "one in a hundred", durable(99, 1), "30m", False),
    Case("MailfleetPartitionWithoutOwner", "a router is gone",
         {PARTITIONS: "24x30", f'{LIVE}"router-0"}}': "12x30", f'{LIVE}"router-1"}}': "12x10 stale"}, "13m", True),
    Case("MailfleetPartitionWithoutOwner", "all routers are gone, ingest is there",
         {PARTITIONS: "24x10 stale", f'{LIVE}"router-0"}}': "24x10 stale", f'{LIVE}"ingest-0"}}': "0x30"}, "14m", True),
    Case("MailfleetPartitionWithoutOwner", "two routers share",
         {PARTITIONS: "24x30", f'{LIVE}"router-0"}}': "12x30", f'{LIVE}"router-1"}}': "12x30"}, "13m", False),
    Case("MailfleetLogUnavailable", "one ingest cannot write",
         {f'{HEALTHY}"ingest", pod="a"}}': "1x5 0x20", f'{HEALTHY}"ingest", pod="b"}}': "1x30"}, "9m", True),
    Case("MailfleetLogUnavailable", "the proxy has no log", {f'{HEALTHY}"egress", pod="a"}}': "0x30"}, "9m", False),
    Case("MailfleetLagGrows", "more and more", {f'{LAG}"sender-0"}}': "0+1000x60"}, "50m", True),
    Case("MailfleetLagGrows", "much, and less and less", {f'{LAG}"sender-0"}}': "90000-1000x60"}, "50m", False),
    Case("MailfleetLagGrows", "little, and more", {f'{LAG}"sender-0"}}': "0+10x60"}, "50m", False),
    Case("MailfleetSourceQuarantined", "in quarantine", {STATE: "0x5 3x20"}, "15m", True, {"source": "ip-1"}),
    Case("MailfleetSourceQuarantined", "slow", {STATE: "2x30"}, "15m", False),
    Case("MailfleetPoolExhausted", "ready for twenty minutes", {READY: "50x40", OLDEST: "0+60x40"}, "25m", True),
    Case("MailfleetPoolExhausted", "ready for ten minutes", {READY: "50x40", OLDEST: "600x40"}, "25m", False),
    Case("MailfleetComplaintsHigh", "0.34 %", {COMPLAINTS: "0.0034x30"}, "15m", True, {"tenant": "acme"}),
    Case("MailfleetComplaintsHigh", "0.1 %", {COMPLAINTS: "0.001x30"}, "15m", False),
    Case("MailfleetSiteDefers", "two in three", outcomes("site", "site", 20, 40, "deferred"), "80m", True, {"site": "x"}),
    Case("MailfleetSiteDefers", "one in three", outcomes("site", "site", 40, 20, "deferred"), "80m", False),
    Case("MailfleetSiteDefers", "one mail an hour", outcomes("site", "site", 0, 1, "deferred"), "80m", False),
    Case("MailfleetBouncesHigh", "one in five", outcomes("source", "source", 40, 10, "bounced"), "80m", True, {"source": "x"}),
    Case("MailfleetBouncesHigh", "one in fifty", outcomes("source", "source", 490, 10, "bounced"), "80m", False),
    Case("MailfleetPossibleDuplicates", "a sender died", {DUPLICATES: "0x5 4x30"}, "10m", True),
    Case("MailfleetPossibleDuplicates", "one died yesterday", {DUPLICATES: "4x30"}, "10m", False),
    Case("MailfleetStatisticsOld", "two partitions are not heard of", {PARTITIONS: "24x30", HEARD: "24x5 22x30"}, "15m", True),
    Case("MailfleetStatisticsOld", "all are", {PARTITIONS: "24x30", HEARD: "24x30"}, "15m", False),
    Case("MailfleetDown", "ingest is gone", {f'{HEALTHY}"ingest", pod="a"}}': "1x10 stale"}, "20m", True),
    Case("MailfleetDown", "one of two is gone",
         {f'{HEALTHY}"ingest", pod="a"}}': "1x10 stale", f'{HEALTHY}"ingest", pod="b"}}': "1x30"}, "20m", False),
    Case("MailfleetOperatorNotLeading", "both stand by", {f'{LEADING}"a"}}': "0x30", f'{LEADING}"b"}}': "0x30"}, "15m", True),
    Case("MailfleetOperatorNotLeading", "both lead", {f'{LEADING}"a"}}': "1x30", f'{LEADING}"b"}}': "1x30"}, "15m", True),
    Case("MailfleetOperatorNotLeading", "none is there any more", {f'{LEADING}"a"}}': "1x10 stale"}, "20m", True),
    Case("MailfleetOperatorNotLeading", "one leads", {f'{LEADING}"a"}}': "1x30", f'{LEADING}"b"}}': "0x30"}, "15m", False),
    Case("MailfleetOperatorFailing", "failing for an hour", {f'{FAILED}"failed"}}': "0+1x60"}, "40m", True),
    Case("MailfleetOperatorFailing", "all well",
         {f'{FAILED}"done"}}': "0+9x60", f'{FAILED}"failed"}}': "3x60"}, "40m", False),
    Case("MailfleetEgressMismatch", "another address",
         {f'{CHECK}"EgressVerified"}}': "1x5 0x20"}, "9m", True, {"source": "ip-1"}),
    Case("MailfleetEgressMismatch", "senders see it, without the operator", {SEEN: "1x20 2x20"}, "25m", True, {"source": "ip-1"}),
    Case("MailfleetEgressMismatch", "senders saw it an hour ago", {SEEN: "1 2x80"}, "70m", False),
    Case("MailfleetEgressMismatch", "its own", {f'{CHECK}"EgressVerified"}}': "1x30"}, "9m", False),
    Case("MailfleetEgressMismatch", "another check", {f'{CHECK}"PTRVerified"}}': "0x30"}, "9m", False),
    Case("MailfleetSourceCheckFailed", "no PTR", {f'{CHECK}"PTRVerified"}}': "1x5 0x20"}, "15m", True, {"check": "PTRVerified"}),
    Case("MailfleetSourceCheckFailed", "all well", {f'{CHECK}"PTRVerified"}}': "1x30"}, "15m", False),
    Case("MailfleetScalingLimited", "for an hour", {LIMITED: "1x60"}, "45m", True, {"pool": "bulk"}),
    Case("MailfleetScalingLimited", "for ten minutes", {LIMITED: "0x35 1x10 0x30"}, "45m", False),
]  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should(case: Case, tmp_path: Path) -> None:
    needs.need("promtool")
    labels = {"alertname": case.alert, "alertstate": "firing", **case.labels}
    selector = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    expected = [{"labels": "{}", "value": 1}] if case.fires else []
    question = {"expr": f"count(ALERTS{{{selector}}} == 1)", "eval_time": case.at, "exp_samples": expected}
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    document: dict[str, Any] = {
        "rule_files": [str(expressions.RULES / f"{name}.yaml") for name in ("recording", case.alert)],
        "evaluation_interval": case.every,
        "group_eval_order": [*RECORDING, case.alert],
        "tests": [{"interval": case.step, "input_series": series, "promql_expr_test": [question]}],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(document))
    run([str(program("promtool")), "test", "rules", str(file)])


@pytest.mark.real
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    needs.need("promtool")
    run(
        [
            str(program("promtool")),
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            *map(str, expressions.RULES.glob("*.yaml")),
        ]
    )


@pytest.mark.parametrize("fires", [True, False])
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(fires: bool) -> None:
    assert {case.alert for case in CASES if case.fires is fires} == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alerts_say_how_bad_it_is_and_what_has_happened(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Mailfleet[A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")
    assert "runbook_url" not in rule["annotations"], "the chart puts it there"


def test_each_alert_has_a_file_of_its_own() -> None:
    for path in expressions.RULES.glob("*.yaml"):
        names = {
            rule.get("alert", "recording")
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]
        }
        assert names == {path.stem}


def test_each_alert_has_a_runbook() -> None:
    assert [rule["alert"] for rule in ALERTS if not (RUNBOOKS / f"{rule['alert']}.md").exists()] == []
