"""The ledger's report: one page of text, and one of HTML with the rates and the kills over time."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from exam.judge import Kill, Line, Verdict

WIDTH, HEIGHT = 1000, 260
COLOURS = {"ingest": "#0a7", "router": "#06c", "sender": "#c30", "log": "#808"}


def text(title: str, verdict: Verdict, load: Sequence[Line], sink: Sequence[Line], kills: Sequence[Kill]) -> str:
    """The page as text."""
    ended = Counter(f"{kill.kind} {kill.signal}" for kill in kills)
    outcomes = Counter(line["outcome"] for line in load)
    seconds = sorted(line["seconds"] for line in load if line["outcome"] == "accepted") or [0.0]
    ours = Counter(duplicate.kind for duplicate in verdict.duplicates)
    begun, over = (load[0]["at"], load[-1]["at"]) if load else (0.0, 1.0)
    lines = [
        f"{title}: {'PASSED' if verdict.passed else 'FAILED'}",
        f"  handed in            {outcomes['accepted']:>8} mails accepted in {over - begun:.0f} s,"
        f" {outcomes['accepted'] / max(over - begun, 1):.0f}/s",
        f"  attempts             {outcomes['refused']:>8} refused, {outcomes['failed']} failed, {outcomes['indoubt']} in doubt",
        f"  the client's wait    {median(seconds):8.3f} s (median), {seconds[int(len(seconds) * 0.99)]:.3f} s (99 %)",
        f"  recipients accepted  {verdict.accepted:>8}",
        f"  delivered            {verdict.delivered:>8}",
        f"  bounced, told        {verdict.bounced:>8}",
        f"  ended processes      {', '.join(f'{count} × {kind}' for kind, count in sorted(ended.items())) or 'none'}",
        f"  copies by clients    {verdict.client_copies:>8}  (they were in doubt and handed it in again)",
        f"  copies unavoidable   {verdict.unavoidable_copies:>8}  (the site took it and cut the line)",
        f"  copies of ours       {len(verdict.duplicates):>8}  (allowed: {verdict.allowed:.1f})"
        f" {', '.join(f'{count} × {kind}' for kind, count in sorted(ours.items()))}",
        f"  at the sink          {Counter(line['kind'] for line in sink)['report']:>8} reports",
    ]
    return "\n".join([*lines, *(f"  FAULT {fault}" for fault in verdict.faults())]) + "\n"


def page(title: str, body: str, load: Sequence[Line], sink: Sequence[Line], kills: Sequence[Kill]) -> str:
    """The page as HTML."""
    instants = [line["at"] for line in (*load, *sink)] or [0.0]
    begun, over = min(instants), max(instants) + 1
    accepted = _per_second([line["at"] for line in load if line["outcome"] == "accepted"], begun, over)
    taken = _per_second([line["at"] for line in sink], begun, over)
    top = max([1, *accepted, *taken])
    marks = "".join(_mark(kill, begun, over) for kill in kills)
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="width:100%">{marks}'
        f"{_curve(accepted, top, '#333')}{_curve(taken, top, '#2a8')}</svg>"
    )
    key = " ".join(f'<b style="color:{colour}">| {kind}</b>' for kind, colour in COLOURS.items())
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>body{{font:14px sans-serif;max-width:1000px;margin:2em auto}}</style><h1>{html.escape(title)}</h1>"
        f"<p>A second, up to {top}: <b>accepted</b> (dark) and <b style='color:#2a8'>taken by the sink</b>; ended: {key}</p>"
        f"{picture}<pre>{html.escape(body)}</pre>\n"
    )


def _per_second(instants: Sequence[float], begun: float, over: float) -> list[int]:
    counts = Counter(int(at - begun) for at in instants)
    return [counts[second] for second in range(int(over - begun) + 1)]


def _curve(values: Sequence[int], top: int, colour: str) -> str:
    points = [
        (second * WIDTH / max(len(values) - 1, 1), HEIGHT * (1 - value / top)) for second, value in enumerate(values)
    ]
    drawn = "".join(f"L{x2:.1f} {y2:.1f}" for _, (x2, y2) in pairwise(points))
    return f'<path d="M{points[0][0]:.1f} {points[0][1]:.1f}{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _mark(kill: Kill, begun: float, over: float) -> str:
    x = (kill.at - begun) / (over - begun) * WIDTH
    dashes = "" if kill.signal == "KILL" else ' stroke-dasharray="4 4"'
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="{COLOURS.get(kill.kind, "#999")}" opacity="0.5"{dashes}>'
        f"<title>{html.escape(kill.name)} {kill.signal}</title></line>"
    )
