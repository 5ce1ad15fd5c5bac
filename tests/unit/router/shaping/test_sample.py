"""Replies as rules show them."""

import pytest

from mailfleet_router.decisions.shaping.sample import sample
from support.replies import reply, shipped_rules


@pytest.mark.parametrize(
    ("line", "phase", "code", "enhanced", "text"),
    [
        ("421 4.7.0 Busy", "rcpt", 421, "4.7.0", "Busy"),
        ("dot 550 spam", "dot", 550, "", "spam"),
        ("dns 0 5.1.2 no such domain", "dns", 0, "5.1.2", "no such domain"),
        ("greeting 554 5.7.1 go away", "greeting", 554, "", "go away"),
        ("450", "rcpt", 450, "", ""),
    ],
)
def test_a_sample_is_an_optional_phase_a_code_an_optional_enhanced_code_and_text(line, phase, code, enhanced, text):
    found = sample(line)
    assert (found.phase, found.code, found.enhanced, found.text) == (phase, code, enhanced, text)


@pytest.mark.parametrize("line", ["", "busy", "600 x", "end 421 x", "4215 x", "421x", "421\n"])
def test_anything_else_is_no_sample(line):
    assert sample(line) is None


@pytest.mark.parametrize(
    "line", [line for rule in shipped_rules() for line in (*rule.samples.match, *rule.samples.never)]
)
def test_every_shipped_sample_is_read_as_parser_and_sender_would_settle_it(line):
    found, settled = sample(line), reply(line)
    assert (found.phase, found.code, found.text) == (settled.phase, settled.code, settled.text)
    assert found.enhanced in ("", settled.enhanced)
    assert found.verdict == settled.verdict or not found.enhanced
