"""The dashboards without Grafana: asks Prometheus what the panels ask, and draws it as pages, or as pictures by Chromium.

`python -m mailfleet_monitoring.preview --prometheus http://127.0.0.1:9090 --into DIRECTORY --minutes 10`
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mailfleet_core.clock import SystemClock
from mailfleet_monitoring import drawing, expressions
from mailfleet_monitoring.dashboards import DASHBOARDS
from mailfleet_monitoring.drawing import Line
from mailfleet_monitoring.panels import Dashboard, Panel

POINTS = 120
"""Of a line, at most."""
WIDTH = 1200


@dataclass(frozen=True, slots=True)
class Window:
    """What is looked at: from Prometheus at `url`, between two instants."""

    url: str
    start: float
    end: float
    interval: str
    """For $__rate_interval."""

    def lines(self, legend: str, expr: str) -> list[Line]:
        """The series of an expression over the window."""
        step = max(1.0, (self.end - self.start) / POINTS)
        found = self._get("query_range", query=expr, start=str(self.start), end=str(self.end), step=str(step))
        return [Line(_named(legend, each["metric"]), _points(each["values"])) for each in found]

    def now(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each series at the end."""
        found = self._get("query", query=expr, time=str(self.end))
        if found and not isinstance(found[0], dict):
            return [({}, float(found[1]))]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def _get(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]["result"]


def page(dashboard: Dashboard, window: Window) -> str:
    """A dashboard as one HTML document."""
    values = expressions.chosen(dashboard)
    rows = []
    for row in dashboard.rows:
        panels = "".join(_panel(panel, window, values) for panel in row.panels)
        rows.append(f"<h2>{escape(row.title)}</h2><div class=row>{panels}</div>")
    head = f"<h1>Mailfleet / {escape(dashboard.title)}</h1>"
    return f"<!doctype html><meta charset=utf-8><style>{drawing.STYLE}</style>{head}{''.join(rows)}"


def _panel(panel: Panel, window: Window, values: Mapping[str, str]) -> str:
    asked = {legend: expressions.filled(expr, values, window.interval) for legend, expr in panel.queries.items()}
    width, height = panel.width * WIDTH // 24, panel.height * 26
    if panel.kind == "timeseries":
        lines = [line for legend, expr in asked.items() for line in window.lines(legend, expr)]
        body = drawing.chart(panel, lines, window.start, window.end, width - 26, height - 34)
    else:
        (expr,) = asked.values()
        found = window.now(expr)
        body = drawing.figure(panel, found) if panel.kind == "stat" else drawing.table(panel, found)
    return (
        f'<div class=panel style="width:{width - 26}px;min-height:{height - 14}px">'
        f"<h3>{escape(panel.title)}</h3>{body}</div>"
    )


def _named(legend: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend


def _points(values: list[tuple[float, str]]) -> tuple[tuple[float, float], ...]:
    pairs = ((float(at), float(text)) for at, text in values)
    return tuple((at, value) for at, value in pairs if value == value and abs(value) != float("inf"))


def picture(html: str, file: Path) -> None:
    """Let Chromium draw a page. Raises CalledProcessError, FileNotFoundError."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise FileNotFoundError("chromium is not on this machine")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "page.html"
        source.write_text(html, encoding="utf-8")
        tall = drawing.height_of(html)
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={name}/profile",
            f"--window-size={WIDTH + 16},{tall}", f"--screenshot={file}", f"file://{source}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=600)


def main() -> None:
    """Ask and draw."""
    parser = argparse.ArgumentParser(prog="mailfleet_monitoring.preview", description=__doc__)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--into", required=True, type=Path, metavar="DIRECTORY")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interval", default="1m", help="for $__rate_interval")
    parser.add_argument("--only", action="append", choices=[each.name for each in DASHBOARDS])
    parser.add_argument("--html", action="store_true", help="pages instead of pictures")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    end = SystemClock.now()
    window = Window(options.prometheus.rstrip("/"), end - options.minutes * 60, end, options.interval)
    for dashboard in DASHBOARDS:
        if not options.only or dashboard.name in options.only:
            html = page(dashboard, window)
            if options.html:
                (options.into / f"{dashboard.name}.html").write_text(html, encoding="utf-8")
            else:
                picture(html, options.into / f"dashboard-{dashboard.name}.png")


if __name__ == "__main__":
    main()
