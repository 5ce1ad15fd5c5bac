"""No receiver sees more than its limits, nothing is lost or bounced, a block is answered with a pause and a probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from exam import limits
from exam.limits import Plan
from support import needs

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.timeout(200)
def test_one_router_keeps_every_limit_and_pauses_a_blocked_source(tmp_path: Path) -> None:
    needs.need("knotd")
    counts = {"ingest": 1, "router": 1, "sender": 1}
    outcome = limits.run(Plan("embedded", 55.0, counts=counts, interval=0.0), tmp_path)
    assert outcome.faults() == []
    assert outcome.mail.duplicates == []


@pytest.mark.timeout(700)
def test_three_routers_that_are_killed_keep_every_limit_and_probe_a_blocked_source(tmp_path: Path) -> None:
    needs.need("knotd")
    outcome = limits.run(Plan("kafka"), tmp_path)
    assert outcome.faults() == []
    assert outcome.mail.duplicates == []
