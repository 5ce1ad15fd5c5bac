"""What probes find, judged in three values."""

from __future__ import annotations

import pytest

from mailfleet_operator.decisions import preflight
from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN
from mailfleet_operator.decisions.life import EGRESS, NOT_LISTED, PLUMBED, PORT25, PTR, fault, fit
from mailfleet_operator.decisions.preflight import Answer, Findings, Named, Path, confirm, judge, listed, reversed_name

HERE = "192.0.2.1"
GOOD = Findings(
    100.0,
    (Named(HERE, ("Mx1.example.org.",), (HERE,)),),
    (Answer("bl.example", HERE, ()),),
    Path(True, True, HERE),
)


def verdict(kind: str, findings: Findings) -> tuple[str, str]:
    found = judge(findings, "mx1.example.org", HERE, "mx.example:25")[kind]
    return found.status, found.reason


def test_everything_right_is_fit() -> None:
    found = judge(GOOD, "mx1.example.org", HERE, "mx.example:25")
    assert {each.status for each in found.values()} == {TRUE}
    assert fit(found)


@pytest.mark.parametrize(
    ("names", "leads_to", "told"),
    [
        ((), (HERE,), (FALSE, "NoPTR")),
        (("other.example.org",), (HERE,), (FALSE, "PTRMismatch")),
        (("mx1.example.org",), ("192.0.2.9",), (FALSE, "NotForwardConfirmed")),
        (("mx1.example.org",), (), (FALSE, "NotForwardConfirmed")),
        (("mx1.example.org",), None, (UNKNOWN, "DNSUnavailable")),
        (None, (HERE,), (UNKNOWN, "DNSUnavailable")),
    ],
)
def test_a_ptr_must_be_the_ehlo_name_and_lead_back(names, leads_to, told) -> None:  # type: ignore[no-untyped-def]
    assert verdict(PTR, GOOD._replace(names=(Named(HERE, names, leads_to),))) == told


def test_every_address_needs_its_ptr() -> None:
    both = (*GOOD.names, Named("2001:db8::1", (), (HERE,)))
    assert verdict(PTR, GOOD._replace(names=both)) == (FALSE, "NoPTR")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((), "Clean"),
        (("127.0.0.2",), "Listed"),
        (("127.0.0.10", "127.255.255.254"), "Listed"),
        (("127.255.255.254",), "Unknown"),  # asked through an open resolver
        (("127.255.255.255",), "Unknown"),  # too many questions
        (("127.0.0.1",), "Unknown"),
        (("203.0.113.80",), "Unknown"),  # a zone that was given up
        (("nonsense",), "Unknown"),
        (None, "Unknown"),
    ],
)
def test_a_blocklist_has_three_answers(answers: tuple[str, ...] | None, told: str) -> None:
    assert listed(answers) == told


def test_one_listing_among_many_counts_and_no_answer_is_no_listing() -> None:
    several = (
        Answer("a.example", HERE, ()),
        Answer("b.example", HERE, None),
        Answer("c.example", HERE, ("127.0.0.3",)),
    )
    assert verdict(NOT_LISTED, GOOD._replace(answers=several)) == (FALSE, "Listed")
    assert verdict(NOT_LISTED, GOOD._replace(answers=several[:2])) == (UNKNOWN, "NoAnswer")
    assert verdict(NOT_LISTED, GOOD._replace(answers=())) == (UNKNOWN, "NotChecked")


def test_the_way_out_is_judged_by_what_it_was_seen_as() -> None:
    assert verdict(PLUMBED, GOOD._replace(path=Path(False, None, trouble="general failure"))) == (FALSE, "NotPlumbed")
    assert verdict(PORT25, GOOD._replace(path=Path(True, False, trouble="no answer in time"))) == (FALSE, "Unreachable")
    assert verdict(EGRESS, GOOD._replace(path=Path(True, True, "198.51.100.7"))) == (FALSE, "AddressMismatch")
    nothing = GOOD._replace(path=Path())
    assert {verdict(kind, nothing)[0] for kind in (PLUMBED, PORT25, EGRESS)} == {UNKNOWN}
    assert fit(judge(nothing, "mx1.example.org", HERE, ""))


def test_what_was_right_is_wrong_only_when_it_was_found_wrong_twice_in_a_row() -> None:
    right = judge(GOOD, "mx1.example.org", HERE, "")
    wrong = judge(GOOD._replace(names=(Named(HERE, (), ()),)), "mx1.example.org", HERE, "")
    once = confirm(confirm(preflight.NEVER, right), wrong)
    assert once.unconfirmed
    assert once.checks[PTR].status == TRUE
    assert confirm(confirm(once, right), wrong).checks[PTR].status == TRUE
    twice = confirm(once, wrong)
    assert not twice.unconfirmed
    assert fault(twice.checks) is not None
    assert confirm(twice, right).checks[PTR].status == TRUE


def test_what_was_never_right_is_wrong_at_the_first_look() -> None:
    wrong = judge(GOOD._replace(names=(Named(HERE, (), ()),)), "mx1.example.org", HERE, "")
    assert confirm(preflight.NEVER, wrong).checks[PTR].status == FALSE


def test_a_dnsbl_is_asked_with_the_address_reversed() -> None:
    assert reversed_name("192.0.2.1", "bl.example.") == "1.2.0.192.bl.example"
    assert reversed_name("2001:db8::1", "bl.example").startswith("1.0.0.0.0.")
