"""No receiver sees more than its limits, nothing is lost, a block is answered with a pause and a probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from exam import limits
from exam.limits import Plan
from support import needs

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.timeout(200)
def test_one_router_keeps_every_limit(tmp_path: Path) -> None:
    needs.need("knotd")
    counts = {"ingest": 1, "router": 1, "sender": 1}
    outcome = limits.run(Plan("embedded", 45.0, limits="settings", counts=counts, interval=0.0), tmp_path)
    assert outcome.faults() == []
    assert outcome.mail.duplicates == []


@pytest.mark.timeout(400)
def test_limits_hold_while_routers_are_killed(tmp_path: Path) -> None:
    needs.need("knotd")
    outcome = limits.run(Plan("kafka", 90.0, limits="settings", interval=18.0), tmp_path)
    assert outcome.faults() == []
    assert outcome.mail.duplicates == []
