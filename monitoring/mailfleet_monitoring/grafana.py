"""Dashboards → Grafana's JSON (schema version 39, Grafana 10.3 and newer)."""

from __future__ import annotations

import json
from typing import Any

from mailfleet_monitoring.panels import Dashboard, Panel, Step, Variable

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
NAMESPACE = Variable("namespace", "mailfleet_bus_healthy", "namespace", "Namespace")
Json = dict[str, Any]


def text(dashboard: Dashboard) -> str:
    """The file of a dashboard."""
    return json.dumps(document(dashboard), indent=1, ensure_ascii=False) + "\n"


def document(dashboard: Dashboard) -> Json:
    """A dashboard as Grafana imports it: with no id of its own, and with any Prometheus."""
    return {
        "uid": f"mailfleet-{dashboard.name}",
        "title": f"Mailfleet / {dashboard.title}",
        "description": dashboard.about,
        "tags": ["mailfleet", "mail"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "",
        "templating": {"list": [_datasource(), *(_variable(each) for each in (NAMESPACE, *dashboard.variables))]},
        "annotations": {"list": [_alerts()]},
        "links": [_link()],
        "panels": _panels(dashboard),
    }


def _panels(dashboard: Dashboard) -> list[Json]:
    found: list[Json] = []
    y = 0
    for row in dashboard.rows:
        found.append({"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                      "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})  # fmt: skip
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            found.append(_panel(panel, len(found) + 1, place))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": [
            _target(panel, chr(ord("A") + each), legend, expr)
            for each, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        **({"transformations": _columns(panel)} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, letter: str, legend: str, expr: str) -> Json:
    target: Json = {"refId": letter, "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
    if panel.kind == "table":
        return {**target, "instant": True, "range": False, "format": "table"}
    return {**target, "instant": panel.kind == "stat", "range": panel.kind != "stat"}


def _defaults(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel.steps)}}
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": _drawing(panel)} if not panel.logarithmic else {"custom": _drawing(panel)}
    elif panel.steps:
        defaults["color"] = {"mode": "thresholds"}
    if panel.words:
        words = {str(number): {"text": word, "index": number} for number, word in enumerate(panel.words)}
        defaults["mappings"] = [{"type": "value", "options": words}]
    return defaults


def _drawing(panel: Panel) -> Json:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
    }


def _steps(steps: tuple[Step, ...]) -> list[Json]:
    if not steps:
        return [{"color": "blue", "value": None}]
    first, *rest = steps
    return [{"color": first.colour, "value": None}, *({"color": each.colour, "value": each.value} for each in rest)]


def _columns(panel: Panel) -> list[Json]:
    shown = panel.columns if panel.bare else (*panel.columns, "Value")
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(shown)}}},
        {
            "id": "organize",
            "options": {
                "indexByName": {name: place for place, name in enumerate(shown)},
                "renameByName": {"Value": panel.title},
            },
        },
    ]


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"], "values": False}},
    "table": {"showHeader": True, "cellHeight": "sm"},
}


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> Json:
    scope = "" if variable is NAMESPACE else '{namespace=~"$namespace"}'
    query = f"label_values({variable.metric}{scope}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
    }


def _alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Mailfleet.*", alertstate="firing", severity="critical"}',
        "titleFormat": "{{alertname}}",
        "step": "60s",
    }


def _link() -> Json:
    return {"type": "dashboards", "title": "Mailfleet", "tags": ["mailfleet"], "asDropdown": True, "includeVars": True,
            "keepTime": True, "targetBlank": False}  # fmt: skip
