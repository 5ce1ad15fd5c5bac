"""A picture of a run: four panels in one SVG, drawn without help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from simulation.day.scenario import Scenario
from simulation.day.tally import STEP_SECONDS, WAITS, quantile

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 1010, 190, 70, 200, 44, 62
COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0",
)  # fmt: skip
STATES = {"unused": "#eeeeee", "good": "#b7e1c0", "slowed": "#f5d06b", "blocked": "#e4685c"}
FONT = "font-family='system-ui, sans-serif'"


class Series(NamedTuple):
    """A line: its name, colour, and a value for each step of the day."""

    name: str
    colour: str
    values: Sequence[float]
    dashed: bool = False


def picture(figures: dict[str, Any], scenario: Scenario) -> str:
    """The SVG of a run."""
    panels = [
        _queues(figures), *[_rates(figures, scenario, name) for name in ("google", "microsoft")],
        _standings(figures), _waits(figures),
    ]  # fmt: skip
    height = TOP + len(panels) * (PANEL + GAP)
    title = f"A simulated day: {figures['mails']:,} mails, automation {'on' if figures['automation'] else 'off'}"
    body = "".join(
        f"<g transform='translate(0 {TOP + index * (PANEL + GAP) + 24})'>{panel}</g>"
        for index, panel in enumerate(panels)
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' viewBox='0 0 {WIDTH} {height}' {FONT}>"
        f"<rect width='{WIDTH}' height='{height}' fill='white'/>"
        f"<text x='{LEFT}' y='30' font-size='18' font-weight='600'>{escape(title)}</text>{body}</svg>\n"
    )


def _queues(figures: dict[str, Any]) -> str:
    queues = sorted(figures["queue"].items(), key=lambda item: -max(item[1]))[:8]
    series = [Series(name, COLOURS[index], values) for index, (name, values) in enumerate(queues)]
    return _lines("Waiting mails by provider", series)


def _rates(figures: dict[str, Any], scenario: Scenario, provider: str) -> str:
    receiver = next(one for one in scenario.receivers if one.name == provider)
    pairs = [pair for pair in figures["attempted"] if pair[1] == provider]
    series = [
        Series(
            source, COLOURS[index], [60.0 * count / STEP_SECONDS for count in figures["attempted"][source, provider]]
        )
        for index, (source, _) in enumerate(pairs)
    ]
    steps = len(series[0].values)
    share = 60.0 * scenario.rate_share
    series.append(Series("what it bears of one address", "#444444", [receiver.rate * share] * steps, dashed=True))
    series.append(Series("of a new one", "#999999", [receiver.new_rate * share] * steps, dashed=True))
    if (limit := figures["limits"].get(provider, 0.0)) > 0:
        series.append(Series("our limit", "#d62728", [60.0 * limit] * steps, dashed=True))
    return _lines(f"Messages per minute to {provider}, by source", series)


def _standings(figures: dict[str, Any]) -> str:
    rows = sorted(figures["states"])
    step = (WIDTH - LEFT - RIGHT) / (86_400.0 / STEP_SECONDS)
    high = min(20.0, PANEL / max(1, len(rows)))
    parts = [_title("What receivers think of three sources")]
    for row, pair in enumerate(rows):
        states, y = figures["states"][pair], row * high
        parts.append(_text(WIDTH - RIGHT + 8, y + high * 0.7, f"{pair[0]}, {pair[1]}"))
        parts += [
            f"<rect x='{LEFT + begin * step:.1f}' y='{y:.1f}' width='{(end - begin) * step:.1f}' height='{high - 2:.1f}'"
            f" fill='{STATES[state]}'/>"
            for begin, end, state in _runs(states)
        ]
    for index, (state, colour) in enumerate(STATES.items()):
        x = LEFT + 330 + index * 90
        parts.append(f"<rect x='{x}' y='-18' width='12' height='12' fill='{colour}'/>{_text(x + 16, -8, state)}")
    return "".join([*parts, _hours()])


def _runs(states: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    begin = 0
    for index in range(1, len(states) + 1):
        if index == len(states) or states[index] != states[begin]:
            yield begin, index, states[begin]
            begin = index


def _waits(figures: dict[str, Any]) -> str:
    rows = [(f"{tenant}, p{round(share * 100)}", quantile(counts, share), index)
            for index, (tenant, counts) in enumerate(figures["waits"].items()) for share in (0.5, 0.99)]  # fmt: skip
    rows.append(("passwords in the burst, p99", quantile(figures["burst_waits"], 0.99), len(rows)))
    high = PANEL / len(rows)
    parts = [_title("Wait of the first attempt, by tenant (logarithmic)")]
    for place, (name, wait, colour) in enumerate(rows):
        share = _log_share(wait)
        y = place * high
        parts.append(
            f"<rect x='{LEFT}' y='{y:.1f}' width='{max(1.0, share * (WIDTH - LEFT - RIGHT)):.1f}' height='{high - 2:.1f}'"
            f" fill='{COLOURS[colour % len(COLOURS)]}'/>"
            + _text(LEFT + share * (WIDTH - LEFT - RIGHT) + 6, y + high * 0.75, f"{name}: {span(wait)}")
        )
    return "".join(parts)


def _log_share(wait: float) -> float:
    place = next((index for index, end in enumerate(WAITS) if end >= wait), len(WAITS))
    return 0.75 * place / len(WAITS)


def span(seconds: float) -> str:
    """A time for people: 0.4 s, 12 s, 3 min, 2.5 h."""
    if seconds < 1.0:
        return f"{seconds:.1f} s"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200.0 else f"{seconds / 3600:.1f} h"


def _lines(title: str, series: list[Series]) -> str:
    most = max((max(one.values) for one in series), default=0.0) * 1.05 or 1.0
    parts = [_title(title), _hours()]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = PANEL * (1.0 - share)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y}' y2='{y}' stroke='#e5e5e5'/>")
        parts.append(_text(LEFT - 6, y + 4, _number(most * share), "end"))
    for index, one in enumerate(series):
        parts.append(_line(one, most))
        y = index * 17 + 10
        dash = " stroke-dasharray='4 3'" if one.dashed else ""
        x = WIDTH - RIGHT + 8
        parts.append(
            f"<line x1='{x}' x2='{x + 14}' y1='{y - 4}' y2='{y - 4}' stroke='{one.colour}' stroke-width='3'{dash}/>"
        )
        parts.append(_text(x + 18, y, one.name))
    return "".join(parts)


def _line(one: Series, most: float) -> str:
    step = (WIDTH - LEFT - RIGHT) / max(1, len(one.values) - 1)
    points = " ".join(
        f"{LEFT + index * step:.1f},{PANEL * (1.0 - value / most):.1f}" for index, value in enumerate(one.values)
    )
    dash = " stroke-dasharray='5 4'" if one.dashed else ""
    return f"<polyline points='{points}' fill='none' stroke='{one.colour}' stroke-width='1.5'{dash}/>"


def _hours() -> str:
    step = (WIDTH - LEFT - RIGHT) / 24
    return "".join(_text(LEFT + hour * step, PANEL + 16, f"{hour:02d}:00", "middle") for hour in range(0, 25, 3))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _title(text: str) -> str:
    return f"<text x='{LEFT}' y='-8' font-size='13' font-weight='600'>{escape(text)}</text>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='11' fill='#333333' text-anchor='{anchor}'>{escape(text)}</text>"
