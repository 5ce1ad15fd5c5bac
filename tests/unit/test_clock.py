"""The clock of services never steps."""

from __future__ import annotations

import time

import pytest

from mailfleet_core import clock
from mailfleet_core.clock import SLEW, Steady


class Machine:
    """A machine's clocks, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.passed = 1.8e9, 5000.0
        monkeypatch.setattr(clock, "passed", lambda: self.passed)
        monkeypatch.setattr(time, "time", lambda: self.wall)

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds


@pytest.mark.parametrize("step", [3 * 86400.0, -3 * 86400.0])
def test_a_step_of_days_is_nothing_to_a_process_that_runs(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    machine = Machine(monkeypatch)
    steady = Steady()
    machine.wait(10)
    machine.wall += step
    before = steady.now()
    for _ in range(3600):
        machine.wait(1)
        now = steady.now()
        assert 1 - SLEW - 1e-6 <= now - before <= 1 + SLEW + 1e-6
        before = now
    assert before == pytest.approx(1.8e9 + 3610, abs=3610 * SLEW)


def test_a_clock_that_is_a_little_wrong_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    steady = Steady()
    machine.wall += 0.5
    for _ in range(1100):
        machine.wait(1)
        steady.now()
    assert steady.now() == pytest.approx(machine.wall, abs=0.001)


def test_a_new_process_has_the_time_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    assert Steady().now() == pytest.approx(machine.wall)
