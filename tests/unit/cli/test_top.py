"""`mailfleet top`: what several processes say, added up, in a frame that fits the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from mailfleet_cli.top_view import Snapshot, as_json, frame, per_second, snapshot


def site(name: str, waiting: int, why: str = "") -> dict[str, Any]:
    return {"site": name, "waiting": waiting, "ready": 1, "in_flight": 2, "why": why}


def page(*sites: dict[str, Any], sources: dict[str, dict[str, int]] | None = None, **more: Any) -> dict[str, Any]:
    return {"queued": 5, "in_flight": 2, "seconds": 30.0, "sites": sites, "sources": sources or {}, **more}


def metrics(received: int = 0, delivered: int = 0) -> str:
    return (
        f'# HELP x\nmailfleet_recipients_accepted_total{{tenant="a"}} {received}.0\n'
        f'mailfleet_recipients_total{{stream="s",verdict="delivered"}} {delivered}.0\n'
        'mailfleet_recipients_created{tenant="a"} 1.7e9\nmailfleet_sender_connections{source="ip-1"} 3.0\n'
    )


def drawn(now: Snapshot, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(frame(now, now, "12:00:00", (width, height)))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_answers_of_several_routers_are_added_up() -> None:
    pages = [page(site("mx.a", 3, "busy"), site("mx.b", 9)), page(site("mx.a", 4)), None]
    seen = snapshot(0.0, pages, {"r1": metrics(), "r2": metrics(), "gone": None})
    assert (seen.routers, seen.silent, seen.queued, seen.connections) == (2, 1, 10, 6)
    assert [(each["site"], each["waiting"], each["why"]) for each in seen.sites] == [
        ("mx.b", 9, ""),
        ("mx.a", 7, "busy"),
    ]


def test_rates_are_of_the_time_between_two_looks() -> None:
    before, now = (snapshot(at, [], {"r": metrics(received, received)}) for at, received in ((0.0, 100), (2.0, 130)))
    assert per_second(before, now)["received"] == 15.0
    assert per_second(before, now)["delivered"] == 15.0
    assert per_second(before, now)["bounced"] == 0.0


@pytest.mark.parametrize("earlier", [{"r": metrics(1000)}, {}, {"r": None}])
def test_a_process_that_began_anew_or_was_not_heard_before_is_no_rate(earlier: dict[str, str | None]) -> None:
    now = snapshot(2.0, [], {"r": metrics(500)})
    assert per_second(snapshot(0.0, [], earlier), now)["received"] == 0.0


def test_a_process_without_mail_so_far_counts_from_its_first() -> None:
    now = snapshot(2.0, [], {"r": metrics(500)})
    assert per_second(snapshot(0.0, [], {"r": "# nothing\n"}), now)["received"] == 250.0


FULL = snapshot(
    0.0,
    [
        page(
            *(site(f"mx{number}.a-rather-long-provider-name.example", 1000 - number, "421 busy " * 9) for number in range(50)),
            sources={f"ip-{number}": {"attempts": 60, "delivered": 3, "deferred": 1} for number in range(20)},
            paused=[{"scope": f"ip-{number} at mx", "until": 1.8e9, "why": "x" * 200} for number in range(9)],
        )
    ],
    {},
)  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (60, 16), (60, 19)])
def test_a_frame_fits_the_terminal_whatever_there_is_to_show(width: int, height: int) -> None:
    lines = drawn(FULL, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "mx0." in text
    assert "ip-1 at mx" in text
    assert "held back (9)" in text


def test_shares_of_a_source_are_of_what_ended() -> None:
    (row,) = [line for line in drawn(FULL) if line.startswith("ip-3 ") and "%" in line]
    assert row.split()[1:4] == ["2.0", "75%", "25%"]


def test_text_from_outside_cannot_draw() -> None:
    hostile = snapshot(0.0, [page(site("mx", 1, "[red]x\x1b[2J\n[/]"))], {})
    text = "\n".join(drawn(hostile))
    assert "[red]x" in text
    assert "\x1b" not in text


def test_nothing_waiting_is_said() -> None:
    assert "Nothing waits." in "\n".join(drawn(snapshot(0.0, [page()], {})))


def test_scripts_get_the_same_as_json() -> None:
    shown = as_json(FULL, FULL)
    assert (shown["queued"], shown["sites"][0]["waiting"], shown["per_second"]["received"]) == (5, 1000, 0.0)
