"""Panels as HTML and SVG: lines, figures, tables."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from mailfleet_monitoring import panels
from mailfleet_monitoring.panels import Panel

COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#b877d9", "#e02f44", "#0a979c", "#f2cc0c", "#705da0", "#ff9830", "#8e8e8e")
NAMED = {"green": "#37872d", "orange": "#d9730d", "red": "#c4162a", "blue": "#1f60c4"}
MOST_LINES = 10
STYLE = (
    "body{font:13px sans-serif;background:#f4f5f5;color:#24292e;margin:8px}h1{font-size:19px;margin:4px}"
    "h2{font-size:14px;margin:12px 4px 2px}h3{font-size:13px;margin:0 0 4px;font-weight:600}.row{display:flex;flex-wrap:wrap}"
    ".panel{background:#fff;border:1px solid #dde;border-radius:3px;margin:3px;padding:8px;box-sizing:content-box}"
    ".figure{font-size:30px;font-weight:600;text-align:center;padding:14px 0}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:2px 8px;border-bottom:1px solid #eee}.none{color:#888;padding:30px;text-align:center}"
    ".legend span{margin-right:12px;white-space:nowrap;font-size:11px}.legend{line-height:15px}"
)
NOTHING = "<div class=none>No data</div>"


class Line(NamedTuple):
    """One series over time."""

    name: str
    points: tuple[tuple[float, float], ...]


def chart(panel: Panel, lines: Sequence[Line], start: float, end: float, width: int, height: int) -> str:
    """Lines with axes and a legend."""
    shown = [line for line in sorted(lines, key=_size, reverse=True) if line.points][:MOST_LINES]
    if not shown:
        return NOTHING
    drawn = _stacked(shown) if panel.stacked else shown
    most = max(value for line in drawn for _, value in line.points) or 1.0
    least = min((value for line in drawn for _, value in line.points if value > 0), default=most / 10)
    place = _Place(start, end, width, height - 22, most * 1.05, least if panel.logarithmic else 0.0)
    parts = [place.axes(panel.unit)]
    for number, line in enumerate(drawn):
        points = " ".join(f"{place.x(at):.1f},{place.y(value):.1f}" for at, value in line.points)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    names = "".join(
        f'<span style="color:{COLOURS[number % len(COLOURS)]}">&#9644; {escape(line.name)}</span>'
        for number, line in enumerate(shown)
    )
    return f'<svg width="{width}" height="{height - 22}">{"".join(parts)}</svg><div class=legend>{names}</div>'


def figure(panel: Panel, found: Sequence[tuple[Mapping[str, str], float]]) -> str:
    """One number, in its colour."""
    if not found or found[0][1] != found[0][1]:
        return NOTHING
    value = found[0][1]
    colour = next((step.colour for step in reversed(panel.steps) if value >= step.value), "blue")
    if panel.steps and value < panel.steps[0].value:
        colour = panel.steps[0].colour
    return f'<div class=figure style="color:{NAMED[colour]}">{escape(amount(value, panel.unit))}</div>'


def table(panel: Panel, found: Sequence[tuple[Mapping[str, str], float]]) -> str:
    """A line for each series."""
    head = "".join(f"<th>{escape(name)}" for name in (*panel.columns, *(() if panel.bare else (panel.title,))))
    rows = []
    for labels, value in sorted(found, key=lambda each: each[1])[:MOST_LINES]:
        cells = [labels.get(name, "") for name in panel.columns]
        if not panel.bare:
            cells.append(panel.words[int(value)] if panel.words else amount(value, panel.unit))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells))
    return f"<table><tr>{head}{''.join(rows)}</table>" if rows else NOTHING


def amount(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if unit == panels.RATIO:
        return f"{value * 100:.3g} %"
    if unit == panels.SECONDS:
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit in (panels.BYTES, panels.BYTES_PER_SECOND):
        power = min(3, int(math.log(max(abs(value), 1), 1024)))
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}{'/s' if unit == panels.BYTES_PER_SECOND else ''}"
    return f"{value:.4g}" + (" /s" if unit == panels.PER_SECOND else "")


def height_of(html: str) -> int:
    """About how tall a page is: its rows of panels."""
    rows = re.findall(r"<div class=row>(.*?)(?=<h2>|$)", html, re.DOTALL)
    total = 60
    for row in rows:
        sizes = [(int(width), int(height)) for width, height in re.findall(r"width:(\d+)px;min-height:(\d+)px", row)]
        total += 34 + _wrapped(sizes)
    return total


def _wrapped(sizes: Sequence[tuple[int, int]]) -> int:
    used = tallest = total = 0
    for width, height in sizes:
        if used + width + 24 > 1204:
            total, used, tallest = total + tallest, 0, 0
        used, tallest = used + width + 24, max(tallest, height + 40)
    return total + tallest


def _size(line: Line) -> float:
    return max((value for _, value in line.points), default=0.0)


def _stacked(lines: Sequence[Line]) -> list[Line]:
    sums: dict[float, float] = {}
    found = []
    for line in lines:
        points = []
        for at, value in line.points:
            sums[at] = sums.get(at, 0.0) + value
            points.append((at, sums[at]))
        found.append(Line(line.name, tuple(points)))
    return found


class _Place(NamedTuple):
    """Where values lie."""

    start: float
    end: float
    width: int
    height: int
    most: float
    least: float
    """Above 0: the scale is logarithmic."""

    def x(self, at: float) -> float:
        return 64 + (self.width - 70) * (at - self.start) / (self.end - self.start)

    def y(self, value: float) -> float:
        low, high = self._scaled(self.least), self._scaled(self.most)
        share = (self._scaled(max(value, self.least)) - low) / ((high - low) or 1)
        return 4 + (self.height - 24) * (1 - share)

    def axes(self, unit: str) -> str:
        parts = []
        for step in range(4):
            low, high = self._scaled(self.least), self._scaled(self.most)
            scaled = low + (high - low) * step / 3.15
            value = math.exp(scaled) if self.least else scaled
            y = self.y(value)
            parts.append(f'<line x1="64" x2="{self.width - 6}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e6ea"/>')
            parts.append(
                f'<text x="60" y="{y + 4:.1f}" font-size="10" text-anchor="end" fill="#666">{amount(value, unit)}</text>'
            )
        for step in range(4):
            at = self.start + (self.end - self.start) * (step + 0.5) / 4
            clock = time.strftime("%H:%M:%S", time.gmtime(at))
            parts.append(
                f'<text x="{self.x(at):.1f}" y="{self.height - 6}" font-size="10" text-anchor="middle" fill="#666">{clock}</text>'
            )
        return "".join(parts)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.least else value
