"""Nothing lost: three minutes of the ledger on each log, with kills, and a short one with gentle ends only."""

from __future__ import annotations

from pathlib import Path

import pytest

from exam import ledger
from exam.ledger import Plan
from support import needs

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bus", ["embedded", "kafka"])
def test_nothing_is_lost_while_every_process_is_killed(bus: str, tmp_path: Path) -> None:
    needs.need("knotd")
    verdict = ledger.run(Plan(bus=bus, count=2400, rate=20.0, interval=4.0), tmp_path)
    assert verdict.faults() == []
    assert verdict.accepted > 2400


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bus", ["embedded", "kafka"])
def test_processes_that_end_gently_deliver_nothing_twice(bus: str, tmp_path: Path) -> None:
    needs.need("knotd")
    verdict = ledger.run(Plan(bus=bus, count=600, rate=20.0, interval=3.0, signal="TERM"), tmp_path)
    assert verdict.faults() == []
    assert verdict.duplicates == []
