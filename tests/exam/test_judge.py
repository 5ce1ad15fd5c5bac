"""The judge finds what it is there to find: one fault planted in honest books, of each kind, makes it say so."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from exam.behaviours import DOMAIN, REPORTS
from exam.judge import Kill, Line, judge

KILLS = (Kill(100.5, "sender-0", "sender", "KILL"), Kill(200.0, "router-0", "router", "KILL"))


class Books:
    """An honest run of forty mails: thirty to sites that take them, ten to one that bounces them."""

    def __init__(self) -> None:
        self.load: list[Line] = []
        self.sink: list[Line] = []
        self.events: list[Line] = []
        for number in range(40):
            self._mail(number, "norcpt" if number % 4 == 3 else "ok2")

    def _mail(self, number: int, site: str) -> None:
        name, mailfleet, recipient = f"m{number}", f"ID{number}", f"r0.m{number}@{site}.{DOMAIN}"
        self.load.append({"id": name, "outcome": "failed", "rcpts": [recipient], "sha": f"s{number}", "mailfleet": ""})
        self.load.append(
            {"id": name, "outcome": "accepted", "rcpts": [recipient], "sha": f"s{number}", "mailfleet": mailfleet}
        )
        where = {"at": 100.0 + number, "id": name, "rcpt": recipient, "mailfleet": mailfleet, "site": site}
        path = f"{name}@{REPORTS}.{DOMAIN}"
        if site == "norcpt":
            self.sink.append({**where, "kind": "report", "action": "failed", "reverse_path": "<>"})
            self.tell(number, "bounced", recipient)
        else:
            self.sink.append({**where, "kind": "taken", "sha": f"s{number}", "replied": True, "reverse_path": path})
            self.tell(number, "delivered", recipient)

    def tell(self, number: int, kind: str, recipient: str) -> None:
        """One event."""
        event = {"id": f"{kind}{number}", "kind": kind, "message_id": f"ID{number}", "recipients": [[0, recipient]]}
        self.events.append(event)

    def again(self, place: int, at: float, **changed: object) -> None:
        """The sink takes a mail once more."""
        self.sink.append({**copy.deepcopy(self.sink[place]), "at": at, **changed})

    def faults(self) -> str:
        """What the judge says."""
        return " | ".join(judge(self.load, self.sink, KILLS, self.events).faults())


def test_honest_books_pass() -> None:
    assert Books().faults() == ""


def _delete_a_delivery(books: Books) -> None:
    del books.sink[5]


def _delete_a_report(books: Books) -> None:
    del books.sink[3]


def _phantom(books: Books) -> None:
    books.again(0, 120.0, id="m999")


def _phantom_recipient(books: Books) -> None:
    books.again(0, 120.0, rcpt=f"stranger@ok2.{DOMAIN}")


def _deliver_what_was_refused(books: Books) -> None:
    books.load = [line for line in books.load if line["id"] != "m0" or line["outcome"] != "accepted"]


def _false_bounce(books: Books) -> None:
    line = books.sink[0]
    books.sink[0] = {**books.sink[3], "id": line["id"], "rcpt": line["rcpt"]}


def _bounce_what_was_delivered(books: Books) -> None:
    books.sink.append({**books.sink[3], "id": books.sink[0]["id"], "rcpt": books.sink[0]["rcpt"]})


def _change_a_byte(books: Books) -> None:
    books.sink[0]["sha"] = "other"


def _wrong_site(books: Books) -> None:
    books.sink[0]["site"] = "ok3"


def _copy_by_a_router(books: Books) -> None:
    books.again(30, 201.0)


def _copy_untold(books: Books) -> None:
    books.again(0, 110.0)


def _third_submission(books: Books) -> None:
    books.again(0, 110.0, mailfleet="ID-other")


def _two_ends_told(books: Books) -> None:
    books.tell(0, "expired", books.sink[0]["rcpt"])


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (_delete_a_delivery, "LOST"),
        (_delete_a_report, "LOST"),
        (_phantom, "phantom"),
        (_phantom_recipient, "phantom"),
        (_deliver_what_was_refused, "phantom"),
        (_false_bounce, "false bounce"),
        (_bounce_what_was_delivered, "delivered and bounced"),
        (_change_a_byte, "corrupt"),
        (_wrong_site, "misrouted"),
        (_copy_by_a_router, "duplicates by router KILL"),
        (_copy_untold, "not told as in doubt"),
        (_third_submission, "more submissions delivered"),
        (_two_ends_told, "not exactly one end"),
    ],
)
def test_one_planted_fault_is_found(plant: Callable[[Books], None], named: str) -> None:
    books = Books()
    plant(books)
    assert named in books.faults()


def test_a_copy_at_a_senders_death_passes_when_it_was_told() -> None:
    books = Books()
    books.again(0, 110.0)
    books.tell(0, "in_doubt", books.sink[0]["rcpt"])
    assert books.faults() == ""


def test_more_copies_than_a_senders_death_explains_are_a_fault() -> None:
    books = Books()
    for place in (0, 1, 2):
        books.again(place, 110.0)
        books.tell(place, "in_doubt", books.sink[place]["rcpt"])
    assert "duplicates by killed senders" in books.faults()


def test_a_copy_that_a_client_in_doubt_handed_in_is_not_ours() -> None:
    books = Books()
    books.load[0]["outcome"] = "indoubt"
    books.again(0, 110.0, mailfleet="ID-other")
    assert books.faults() == ""


def test_a_copy_after_a_site_cut_the_line_is_not_ours() -> None:
    books = Books()
    books.sink[0]["replied"] = False
    books.again(0, 110.0, replied=True)
    assert books.faults() == ""
