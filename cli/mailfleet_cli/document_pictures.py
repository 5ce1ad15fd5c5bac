"""Pictures for the pages of docs/ (SVG), drawn from what the code computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from mailfleet_cli.document_stories import CONFIGURED, MINUTE, UNTIL, Answers, back_off_story, counts
from mailfleet_router.decisions.shaping import reputation

INK, LINES, COLOURS = "#333333", "#cccccc", ("#1b6ca8", "#c2571a", "#3a7d44")
Points = Sequence[tuple[float, float]]


class Frame(NamedTuple):
    """A rectangle of the picture, and the values at its edges."""

    left: float
    top: float
    width: float
    height: float
    most_x: float
    most_y: float

    def x(self, value: float) -> float:
        """Where `value` lies across."""
        return self.left + self.width * value / self.most_x

    def y(self, value: float) -> float:
        """Where `value` lies upwards."""
        return self.top + self.height * (1 - value / self.most_y)


def reputation_picture() -> str:
    """The score against each rate, for three numbers of answers."""
    parts = [_text(30, 24, "Score against the rate that was seen, when nothing else is bad", size=15)]
    for number, (term, field) in enumerate(zip(reputation.TERMS, ("deferred", "bounced", "blocked", "complained"),
                                               strict=True)):  # fmt: skip
        frame = Frame(60 + 370 * (number % 2), 70 + 260 * (number // 2), 300, 180, term.limit * 1.2, 100)
        parts += _scores(frame, term, field)
    for number, answers in enumerate(SIZES):
        parts.append(_line([(60 + 170 * number, 575), (90 + 170 * number, 575)], COLOURS[number]))
        parts.append(_text(96 + 170 * number, 579, f"{answers:,} answers"))
    return _picture(800, 600, parts)


SIZES = (100, 1_000, 10_000)


def _scores(frame: Frame, term: reputation.Term, field: str) -> Iterator[str]:
    yield from _axes(
        frame, f"{term.name} (%)", [(term.limit * step / 4, f"{term.limit * step * 25:.3g}") for step in range(5)]
    )
    for border, state in zip(reputation.BORDERS, reputation.STATES[1:], strict=True):
        yield _line([(frame.left, frame.y(border)), (frame.left + frame.width, frame.y(border))], LINES, dashed=True)
        yield _text(frame.left + 5, frame.y(border) + 14, state)
    for colour, answers in zip(COLOURS, SIZES, strict=True):
        curve = [(rate, _score(field, rate, answers)) for rate in (term.limit * 1.2 * step / 60 for step in range(61))]
        yield _line([(frame.x(rate), frame.y(value)) for rate, value in curve], colour)


def _score(field: str, rate: float, answers: int) -> float:
    bad = rate * answers
    # Complaints and block replies come beside the answers, deferrals and bounces are some of them.
    delivered = answers if field in ("complained", "blocked") else answers - bad
    seen = Answers("", delivered=delivered, **{field: bad})
    return reputation.score(counts(seen), 0.0).score


def back_off_picture() -> str:
    """The rate of a scope through the story of docs/back-off.md."""
    moments, rates = back_off_story()
    limit = CONFIGURED.rate_per_second * MINUTE
    frame = Frame(60, 60, 700, 260, UNTIL, limit * 1.25)
    parts = [_text(30, 24, "Messages a minute that the scope may send, over the minutes; a dot is a reply", size=15)]
    parts += _axes(
        frame, "minutes", [(at, f"{at}") for at in range(0, UNTIL + 1, 20)], [limit / 4 * n for n in range(5)]
    )
    parts.append(_line([(frame.left, frame.y(limit)), (frame.left + frame.width, frame.y(limit))], LINES, dashed=True))
    parts.append(_line(list(_steps(frame, rates)), COLOURS[0]))
    for moment in moments:
        if moment.said:
            colour = COLOURS[2] if moment.said.startswith("250") else COLOURS[1]
            parts.append(
                f'<circle cx="{frame.x(moment.minute):.1f}" cy="{frame.y(limit * 1.1):.1f}" r="3.5" fill="{colour}"/>'
            )
    return _picture(800, 380, parts)


def _steps(frame: Frame, values: Points) -> Iterator[tuple[float, float]]:
    """A line that keeps each value until the next one."""
    last = values[0][1]
    for at, value in values:
        yield frame.x(at), frame.y(last)
        if value != last:
            yield frame.x(at), frame.y(value)
        last = value


def _axes(
    frame: Frame, title: str, marks: Sequence[tuple[float, str]], heights: Sequence[float] = (0, 50, 100)
) -> Iterator[str]:
    bottom = frame.top + frame.height
    yield _line([(frame.left, frame.top), (frame.left, bottom), (frame.left + frame.width, bottom)], INK)
    if title:
        yield _text(frame.left, frame.top - 12, title)
    for value, text in marks:
        yield _text(frame.x(value), bottom + 16, text, anchor="middle")
    for value in heights:
        yield _text(frame.left - 6, frame.y(value) + 4, f"{value:g}", anchor="end")


def _line(points: Points, colour: str, dashed: bool = False) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'


def _picture(width: int, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, "<!-- Generated by `make docs`. -->", ground, *parts, "</svg>\n"])
