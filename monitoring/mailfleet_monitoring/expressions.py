"""Everything that is asked of Prometheus, and what of it a Mailfleet without Kubernetes cannot answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mailfleet_monitoring.dashboards import DASHBOARDS
from mailfleet_monitoring.grafana import NAMESPACE
from mailfleet_monitoring.panels import Dashboard

RULES = Path(__file__).parents[2] / "charts/mailfleet/files/rules"

_NAME = re.compile(r"\b(?:mailfleet|process|namespace[a-z_]*:mailfleet)[a-z0-9_:]*|\bup\b|\bALERTS\b")
_COMPARISON = re.compile(r"(==|!=|>=|<=|(?<![=!])>|<)(?!\s*bool)")
_TEXT = re.compile(r'("[^"]*")')
_MATCHERS = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One PromQL expression and where it stands."""

    where: str
    expr: str

    @property
    def metrics(self) -> frozenset[str]:
        """The series that it names."""
        return frozenset(_NAME.findall(_MATCHERS.sub("", self.expr)))


def of_dashboards() -> Iterator[Asked]:
    """All queries of all panels."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for legend, expr in panel.queries.items():
                yield Asked(f"{dashboard.name}: {panel.title}: {legend}", expr)


def of_rules() -> Iterator[Asked]:
    """The expressions of all rules."""
    for rule in rules():
        window = rule.get("labels", {}).get("window", "")
        yield Asked(f"{rule.get('alert') or rule['record']} {window}".strip(), rule["expr"])


def rules() -> list[dict[str, Any]]:
    """All rules of the chart."""
    found: list[dict[str, Any]] = []
    for path in sorted(RULES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found += [rule for group in document["groups"] for rule in group["rules"]]
    return found


def chosen(dashboard: Dashboard, values: Mapping[str, str] | None = None) -> dict[str, str]:
    """What stands for a dashboard's variables: the given values, else all."""
    given = values or {}
    return {each.name: given.get(each.name, ".*") for each in (NAMESPACE, *dashboard.variables)}


def filled(expr: str, values: Mapping[str, str], interval: str) -> str:
    """An expression with its variables as Grafana would fill them in."""
    for name, value in (*values.items(), ("__rate_interval", interval)):
        expr = re.sub(rf"\${name}\b", lambda _, value=value: value, expr)  # type: ignore[misc]
    return expr


def counted(expr: str) -> str:
    """The same, but nothing is left out: comparisons say 0 or 1, and `unless` is `and`. It has data when all its parts have."""
    parts = _TEXT.split(expr)
    return "".join(part if number % 2 else _without_filters(part) for number, part in enumerate(parts))


def _without_filters(part: str) -> str:
    # Between quotes stand values of matchers only; `=~`, `!=` before a quote are matchers themselves.
    head, last = (part[:-2], part[-2:]) if part.endswith(("=~", "!~", "!=")) else (part, "")
    return re.sub(r"\bunless\b", "and", _COMPARISON.sub(r"\1 bool", head)) + last
