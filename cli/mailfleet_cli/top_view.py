"""What `mailfleet top` shows: answers of the processes → a snapshot; two snapshots → a frame that fits the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mailfleet_cli import output

ACCEPTED = "mailfleet_recipients_accepted_total"
ENDED = "mailfleet_recipients_total"
CONNECTIONS = "mailfleet_sender_connections"
VERDICTS = ("delivered", "deferred", "bounced", "expired")
MOST_SOURCES, MOST_PAUSED = 6, 5
"""Lines, where there is not room for all."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the processes said at one instant."""

    at: float
    routers: int = 0
    """That answered."""
    silent: int = 0
    queued: int = 0
    in_flight: int = 0
    connections: int = 0
    processes: frozenset[str] = frozenset()
    """That answered."""
    counters: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(process, `received` or a verdict) → recipients since the process began."""
    sites: tuple[dict[str, Any], ...] = ()
    """Most waiting first."""
    sources: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    paused: tuple[dict[str, Any], ...] = ()


def snapshot(at: float, pages: Iterable[dict[str, Any] | None], metrics: Mapping[str, str | None]) -> Snapshot:
    """From the routers' `/api/top` and everybody's `/metrics` by URL; None where nobody answered."""
    every = list(pages)
    answers = [page for page in every if page is not None]
    counters: dict[tuple[str, str], float] = {}
    connections = 0.0
    for url, text in metrics.items():
        for name, labels, value in _samples(text or ""):
            what = "received" if name == ACCEPTED else labels.get("verdict", "") if name == ENDED else ""
            if what:
                counters[url, what] = counters.get((url, what), 0.0) + value
            connections += value if name == CONNECTIONS else 0.0
    return Snapshot(
        at, len(answers), len(every) - len(answers), sum(page["queued"] for page in answers),
        sum(page["in_flight"] for page in answers), int(connections),
        frozenset(url for url, text in metrics.items() if text is not None), counters, _sites(answers), _sources(answers),
        tuple(scope for page in answers for scope in page.get("paused", ())),
    )  # fmt: skip


def per_second(before: Snapshot, now: Snapshot) -> dict[str, float]:
    """Recipients per second between two snapshots; a process that began anew counts from its next one."""
    seconds = max(0.001, now.at - before.at)
    rates = dict.fromkeys(("received", *VERDICTS), 0.0)
    for (url, what), value in now.counters.items():
        # A counter has no series before its first recipient.
        grown = value - before.counters.get((url, what), 0.0)
        if what in rates and url in before.processes and grown > 0:
            rates[what] += grown / seconds
    return rates


def frame(before: Snapshot, now: Snapshot, clock: str, size: tuple[int, int]) -> RenderableType:
    """The picture of `now` on a terminal of `size`, columns and lines."""
    width, height = size
    # Totals take two lines, sites at least five, and each further part two more than it has rows.
    rows = (height - 7) // 2 - 2
    paused = now.paused[: max(0, min(MOST_PAUSED, rows))]
    busiest = sorted(now.sources.items(), key=lambda item: -item[1].get("attempts", 0))
    sources = busiest[: max(0, min(MOST_SOURCES, rows))]
    left = height - 4 - sum(len(part) + 2 for part in (sources, paused) if part)
    name_width = max(12, width * 2 // 5)
    parts: list[RenderableType] = [_totals(before, now, clock), "", _site_table(now.sites[: max(1, left)], name_width)]
    if sources:
        parts += ["", _source_table(sources, name_width)]
    if paused:
        parts += ["", _paused_table(paused, len(now.paused), name_width)]
    return Group(*parts)


def as_json(before: Snapshot, now: Snapshot) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "routers": now.routers, "silent": now.silent, "queued": now.queued, "in_flight": now.in_flight,
        "connections": now.connections, "per_second": per_second(before, now), "sites": now.sites,
        "sources": now.sources, "paused": now.paused,
    }  # fmt: skip


def _samples(text: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        if line.startswith((ACCEPTED, ENDED, CONNECTIONS)):
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            pairs = (pair.partition("=") for pair in labels.split(","))
            yield name, {key: word.strip('"') for key, _, word in pairs}, float(value or line.rpartition(" ")[2])


def _sites(pages: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """One row a site: a site of several partitions is added up."""
    rows: dict[str, dict[str, Any]] = {}
    for each in (site for page in pages for site in page["sites"]):
        row = rows.setdefault(each["site"], {**each, "waiting": 0, "ready": 0, "in_flight": 0})
        for count in ("waiting", "ready", "in_flight"):
            row[count] += each[count]
        row["why"] = row["why"] or each["why"]
    return tuple(sorted(rows.values(), key=lambda row: -row["waiting"]))


def _sources(pages: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for page in pages:
        for name, counts in page["sources"].items():
            row = found.setdefault(name, {"attempts_per_second": 0.0})
            row["attempts_per_second"] += counts.get("attempts", 0) / max(0.001, page["seconds"])
            for key, value in counts.items():
                row[key] = row.get(key, 0) + value if isinstance(value, int) else value
    return found


def _totals(before: Snapshot, now: Snapshot, clock: str) -> RenderableType:
    rates = per_second(before, now)
    silent = f", {now.silent} silent" if now.silent else ""
    queue = f"queued {now.queued:,}  in flight {now.in_flight:,}  connections {now.connections:,}"
    head = f"{clock}  routers {now.routers}{silent}  {queue}"
    line = "  ".join(f"{what} {rate:,.1f}/s" for what, rate in rates.items())
    return Group(_line(head, "bold"), _line(line, ""))


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(name_width: int, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", expand=True, padding=(0, 1, 0, 0))
    last = len(columns) - 1
    for number, name in enumerate(columns):
        right = 0 < number < last
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis",
                         ratio=None if right else 1 if number else None, max_width=None if number else name_width)  # fmt: skip
    return table


def _site_table(sites: Iterable[dict[str, Any]], name_width: int) -> RenderableType:
    table = _table(name_width, "site", "waiting", "ready", "in flight", "why")
    for site in sites:
        counts = (f"{site[name]:,}" for name in ("waiting", "ready", "in_flight"))
        table.add_row(output.clean(site["site"]), *counts, output.clean(site["why"] or ""))
    return table if table.row_count else _line("Nothing waits.", "dim")


def _source_table(sources: Iterable[tuple[str, dict[str, Any]]], name_width: int) -> RenderableType:
    table = _table(name_width, "source", "tries/s", *VERDICTS[:3], "standing")
    for name, counts in sources:
        total = sum(counts.get(verdict, 0) for verdict in VERDICTS)
        shares = (f"{counts.get(verdict, 0) / total:.0%}" if total else "-" for verdict in VERDICTS[:3])
        table.add_row(
            output.clean(name),
            f"{counts['attempts_per_second']:,.1f}",
            *shares,
            output.clean(counts.get("standing", "")),
        )
    return table


def _paused_table(paused: Iterable[dict[str, Any]], total: int, name_width: int) -> RenderableType:
    table = _table(name_width, f"held back ({total})", "until", "why")
    for scope in paused:
        until = output.clock(scope["until"])[11:16] if scope.get("until") else "-"
        table.add_row(output.clean(scope["scope"]), until, output.clean(scope.get("why", "")))
    return table
