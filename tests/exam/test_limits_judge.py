"""The judge of limits finds what it is there to find: honest books pass, and one planted fault of each kind is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exam.judge import Kill
from exam.limits_judge import PAUSE_SECONDS, Line, after_the_pause, judge_limits
from exam.receivers import BY_NAME, MIMECAST, Block, Receiver
from exam.windows import Gate, is_above, most_above, most_at_once

BLOCK = Block("ip-2", "mimecast", 40.0, 3, 200.0)
PROBE_AT, END = 47.0 + PAUSE_SECONDS, 560.0


class Book:
    """A run of 560 seconds in which two sources send to two receivers as fast as they may, and one is blocked."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.kills: list[Kill] = []
        self.numbers = itertools.count(1)
        for source, site in itertools.product(("ip-1", "ip-2"), ("google", "mimecast")):
            if (source, site) == (BLOCK.source, BLOCK.site):
                self.send(source, site, 0.0, 40.0)
                self.blocked()
            else:
                self.send(source, site, 0.0, END)
        self.lines.sort(key=itemgetter("at"))

    def send(self, source: str, site: str, begin: float, end: float) -> None:
        """Messages as the limits have it, on connections that are full when they close."""
        limits, at = BY_NAME[site].limits, begin
        while at < end:
            number = self.line("connect", at, source, site)
            for _ in range(limits.messages_per_connection):
                self.line("mail", at, source, site, number, block="")
                at += 1 / limits.messages_per_second
            self.line("close", at, source, site, number)

    def blocked(self) -> None:
        """Five refusals, the pause, the probe, and another message a minute later."""
        for at in (44.0, 45.0, 46.0, 47.0, 48.0, PROBE_AT + 5, PROBE_AT + 66):
            self.message(at, BLOCK.source, BLOCK.site, "blocked" if at < PROBE_AT else "")

    def line(self, kind: str, at: float, source: str, site: str, number: int = 0, **more: object) -> int:
        """One line; the number of the connection."""
        number = number or next(self.numbers)
        self.lines.append({"at": at, "kind": kind, "source": source, "site": site, "connection": number, **more})
        return number

    def message(self, at: float, source: str, site: str, block: str = "") -> None:
        """One message on a connection of its own."""
        number = self.line("connect", at, source, site)
        self.line("mail", at, source, site, number, block=block)
        self.line("close", at + 0.1, source, site, number)

    def faults(self) -> str:
        """What the judge says."""
        return " | ".join(judge_limits(self.lines, (BLOCK,), self.kills, END).faults)

    def without(self, unwanted: Callable[[Line], bool]) -> None:
        """Take lines out."""
        self.lines = [line for line in self.lines if not unwanted(line)]


def of(line: Line, source: str, site: str) -> bool:
    return (line["source"], line["site"]) == (source, site)


def test_honest_books_pass() -> None:
    assert Book().faults() == ""


def _violation(book: Book) -> None:
    book.line("violation", 50.0, "ip-1", "google", what="concurrency")


def _too_fast(book: Book) -> None:
    number = next(line["connection"] for line in book.lines if of(line, "ip-1", "google"))
    book.line("mail", 3.5, "ip-1", "google", number, block="")


def _early_by_more_than_the_tolerance(book: Book) -> None:
    line = next(
        line for line in book.lines if of(line, "ip-1", "google") and line["kind"] == "mail" and line["at"] > 100
    )
    line["at"] -= 0.06


def _too_many_connections_in_time(book: Book) -> None:
    book.line("close", 250.2, "ip-1", "google", book.line("connect", 250.1, "ip-1", "google"))
    book.line("close", 250.4, "ip-1", "google", book.line("connect", 250.3, "ip-1", "google"))


def _too_many_at_once(book: Book) -> None:
    for at in (240.0, 243.0):
        book.line("close", 248.0, "ip-1", "google", book.line("connect", at, "ip-1", "google"))


def _never_closed(book: Book) -> None:
    for at in (240.0, 243.0):
        book.line("connect", at, "ip-1", "google")


def _too_many_on_one(book: Book) -> None:
    one, other = list(dict.fromkeys(line["connection"] for line in book.lines if of(line, "ip-1", "google")))[3:5]
    for line in book.lines:
        if line["connection"] == other and line["kind"] == "mail":
            line["connection"] = one
            break


def _a_site_too_fast(book: Book) -> None:
    for number in range(3, 12):
        book.send(f"ip-{number}", "mimecast", 100.0, 140.0)


def _no_pause(book: Book) -> None:
    book.message(90.0, BLOCK.source, BLOCK.site)


def _paused_late(book: Book) -> None:
    book.message(58.0, BLOCK.source, BLOCK.site, "blocked")


def _connected_in_the_pause(book: Book) -> None:
    book.line("close", 101.0, BLOCK.source, BLOCK.site, book.line("connect", 100.0, BLOCK.source, BLOCK.site))


def _all_stopped_there(book: Book) -> None:
    book.without(lambda line: of(line, "ip-1", "mimecast") and 50 < line["at"] < PROBE_AT)


def _stopped_everywhere(book: Book) -> None:
    book.without(lambda line: of(line, "ip-2", "google") and 50 < line["at"] < PROBE_AT)


def _no_probe(book: Book) -> None:
    book.without(lambda line: of(line, *(BLOCK.source, BLOCK.site)) and line["at"] > PROBE_AT)


def _no_recovery(book: Book) -> None:
    book.without(lambda line: of(line, *(BLOCK.source, BLOCK.site)) and line["at"] > PROBE_AT + 30)


def _back_at_once(book: Book) -> None:
    book.message(PROBE_AT + 9, BLOCK.source, BLOCK.site)


def _block_not_met(book: Book) -> None:
    for line in book.lines:
        if "block" in line:
            line["block"] = ""


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (_violation, "the sink refused ip-1 at google: concurrency"),
        (_too_fast, "message rate of ip-1 at google"),
        (_early_by_more_than_the_tolerance, "message rate of ip-1 at google"),
        (_too_many_connections_in_time, "connection rate of ip-1 at google"),
        (_too_many_at_once, "concurrency of ip-1 at google"),
        (_never_closed, "concurrency of ip-1 at google"),
        (_too_many_on_one, "messages on a connection of ip-1 at google"),
        (_a_site_too_fast, "message rate of all at mimecast"),
        (_no_pause, "was not paused"),
        (_paused_late, "was not paused"),
        (_connected_in_the_pause, "was paused but connected"),
        (_all_stopped_there, "stopped other sources there"),
        (_stopped_everywhere, "stopped it at other sites"),
        (_no_probe, "was not probed"),
        (_no_recovery, "did not go on after its probe"),
        (_back_at_once, "came back too fast"),
        (_block_not_met, "it has shown nothing"),
    ],
)
def test_one_planted_fault_is_found(plant: Callable[[Book], None], named: str) -> None:
    book = Book()
    plant(book)
    assert named in book.faults()


def test_a_probe_may_wait_for_the_new_owner_of_a_router_that_was_killed() -> None:
    book = Book()
    _no_probe(book)
    book.message(PROBE_AT + 150, BLOCK.source, BLOCK.site)
    assert "was not probed" in book.faults()
    book.kills = [Kill(PROBE_AT + 10, "router-1", "router", "KILL"), Kill(PROBE_AT + 80, "router-1", "router", "KILL")]
    assert book.faults() == ""


def test_hits_before_a_routers_death_do_not_count() -> None:
    book = Book()
    book.kills = [Kill(44.5, "router-0", "router", "KILL")]
    book.message(56.9, BLOCK.source, BLOCK.site, "blocked")
    assert book.faults() == ""
    book.kills = []
    assert "was not paused" in book.faults()


def test_what_comes_after_the_pause_is_the_probe_and_what_follows_it() -> None:
    book = Book()
    assert after_the_pause(book.lines, BLOCK) == [PROBE_AT + 5, PROBE_AT + 66]
    _block_not_met(book)
    assert after_the_pause(book.lines, BLOCK) == []


def test_what_lay_in_senders_hands_is_not_the_routers_doing() -> None:
    def faults(count: int) -> list[str]:
        lines: list[Line] = []
        for number in range(count):
            lines.append(
                {"at": 1.0, "kind": "mail", "source": f"ip-{number}", "site": "mimecast", "connection": number}
            )
        return judge_limits(lines).faults

    held: Receiver = MIMECAST
    assert faults(held.site_window + 1) == []
    assert "message rate of all at mimecast" in faults(held.site_window + 2)[0]


INSTANTS = st.lists(st.floats(0, 20, allow_nan=False).map(lambda at: round(at, 3)), max_size=25).map(sorted)


@given(INSTANTS, st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 3))
def test_the_worst_window_is_that_of_all_pairs(instants: Sequence[float], rate: float, burst: int) -> None:
    pairs = [
        (last - first + 1) - rate * (instants[last] - instants[first])
        for first in range(len(instants))
        for last in range(first + 1, len(instants))
    ]
    assert most_above(instants, rate, burst) == pytest.approx(max([0.0, *pairs]) - burst)


@given(INSTANTS, st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 3))
def test_what_a_receivers_gate_lets_through_is_within_every_window(
    instants: Sequence[float], rate: float, burst: int
) -> None:
    gate = Gate(rate, burst)
    passed = [at for at in instants if gate.take(at)]
    assert not is_above(passed, rate, burst, gate.tolerance + 1e-5)
    if len(passed) < len(instants):
        assert is_above(instants, rate, burst, gate.tolerance - 1e-5)


def test_spans_that_only_touch_within_the_tolerance_are_not_at_once() -> None:
    assert most_at_once([(0.0, 10.0), (9.97, 20.0)]) == 1
    assert most_at_once([(0.0, 10.0), (9.9, 20.0)]) == 2
