"""What a dashboard is made of: panels with queries, in rows. Values only; `grafana.py` makes Grafana's JSON of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PER_SECOND = "suffix: /s"
SECONDS, BYTES, BYTES_PER_SECOND, RATIO, SHORT, PERCENT = "s", "bytes", "Bps", "percentunit", "short", "percent"

N = 'namespace=~"$namespace"'
"""Every selector has it: several installations may share a Prometheus."""
OURS = "ingest|router|sender|egress|operator"
ALIVE = f'component=~"{OURS}"'
"""Of what all programs export: only ours."""
WITHOUT_OWNER = (
    f"max(max_over_time(mailfleet_queue_partitions{{{N}}}[1h])) - sum(mailfleet_router_partitions_live{{{N}}})"
)
"""Queue partitions that nobody routes; also when those are gone who knew how many there are."""


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` on a figure has this colour."""

    value: float
    colour: str


GOOD, WATCH, BAD = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: `queries` are legend → PromQL, in this order."""

    kind: str
    """`timeseries`, `stat` or `table`."""
    title: str
    queries: Mapping[str, str]
    unit: str
    about: str
    """For the (i) of the panel: what a postmaster reads from it."""
    width: int = 8
    """Of 24."""
    height: int = 8
    stacked: bool = False
    steps: tuple[Step, ...] = ()
    """Colours of a figure, or lines in a chart; the first one has no lower end."""
    logarithmic: bool = False
    decimals: int | None = None
    columns: tuple[str, ...] = ()
    """Of a table: the labels it shows, before the value."""
    bare: bool = False
    """Of a table: the labels are all there is to see."""
    words: tuple[str, ...] = ()
    """Of a table: what the values 0, 1, 2 … mean."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title, from left to right and then below."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: one, several or all values of a label."""

    name: str
    metric: str
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard."""

    name: str
    """`mailfleet-NAME` is its uid, NAME.json its file."""
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)


def chart(title: str, queries: Mapping[str, str], unit: str, about: str, **more: object) -> Panel:
    """Lines over time."""
    return Panel("timeseries", title, queries, unit, about, **more)  # type: ignore[arg-type]


def figure(title: str, query: str, unit: str, about: str, *steps: Step, **more: object) -> Panel:
    """One number, now."""
    options: dict[str, object] = {"width": 4, "height": 4, **more}
    return Panel("stat", title, {title: query}, unit, about, steps=steps, **options)  # type: ignore[arg-type]


def table(title: str, query: str, columns: tuple[str, ...], unit: str, about: str, **more: object) -> Panel:
    """One line for each series, now."""
    return Panel("table", title, {title: query}, unit, about, columns=columns, **more)  # type: ignore[arg-type]


def rate(metric: str, by: str = "", **labels: str) -> str:
    """Events a second: the sum over `by`. Labels are matched as regular expressions."""
    matchers = ", ".join([N, *(f'{name}=~"{value}"' for name, value in labels.items())])
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def total(metric: str, by: str = "", how: str = "sum", **labels: str) -> str:
    """A gauge, summed (or `how`) over `by`."""
    matchers = ", ".join([N, *(f'{name}=~"{value}"' for name, value in labels.items())])
    grouped = f" by ({by})" if by else ""
    return f"{how}{grouped} ({metric}{{{matchers}}})"


def quantile(share: float, histogram: str, by: str = "", **labels: str) -> str:
    """A quantile of a histogram of seconds."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', f'le, {by}' if by else 'le', **labels)})"


def quantiles(histogram: str, **labels: str) -> dict[str, str]:
    """The three that are looked at."""
    return {f"p{share:g}": quantile(share / 100, histogram, **labels) for share in (50, 95, 99)}
