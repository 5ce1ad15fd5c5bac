"""`mailfleet source`: what becomes of a source when some of it is given anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailfleet_cli.main import mailfleet
from mailfleet_cli.settings import RunSettings, derive
from mailfleet_cli.sources import changed_source
from mailfleet_core.model.wire import ACTIVE, DRAINING, QUARANTINED, Source

NOW = 1_800_000_000.0
OLD = Source("ip-1", "warm", 3, "192.0.2.1", lanes=(4,), state=QUARANTINED, warmup="conservative", started_at=5.0,
             reason="listed", by="ann", at=6.0)  # fmt: skip


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(mailfleet, list(arguments))
    return result.exit_code, " ".join((result.output + result.stderr).split())


def test_what_is_not_given_stays() -> None:
    changed = changed_source(OLD, {"weight": 1}, "", "bob", NOW)
    assert (changed.weight, changed.pool, changed.lanes, changed.state) == (1, "warm", (4,), QUARANTINED)
    assert (changed.by, changed.at) == ("bob", NOW)


def test_a_reason_stays_while_the_state_does() -> None:
    assert changed_source(OLD, {"weight": 1}, "", "bob", NOW).reason == "listed"
    assert changed_source(OLD, {"state": ACTIVE}, "", "bob", NOW).reason == ""
    assert changed_source(OLD, {"state": DRAINING}, "new network", "bob", NOW).reason == "new network"


def test_a_warm_up_begins_when_its_plan_is_named_and_not_again() -> None:
    assert changed_source(OLD, {"warmup": "conservative"}, "", "bob", NOW).started_at == 5.0
    assert changed_source(OLD, {"warmup": "linear-45"}, "", "bob", NOW).started_at == NOW


@pytest.mark.parametrize("arguments", [("set", "ip-1"), ("drain", "ip-1"), ("remove", "ip-1")])
def test_sources_of_the_settings_are_changed_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "mailfleet.toml"
    file.write_text("[[source]]\nname = 'ip-1'\n")
    code, text = call("--config", str(file), "source", *arguments)
    assert code == 1
    assert "change them there, or set [egress] sources = 'control'" in text


def test_sources_of_the_settings_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "mailfleet.toml"
    file.write_text("[[source]]\nname = 'ip-1'\naddress = '192.0.2.1'\nlanes = 2\n")
    code, text = call("--config", str(file), "sources", "--json")
    shown = json.loads(text)
    assert code == 0
    assert (shown["name"], shown["address"], shown["lanes"], shown["state"]) == ("ip-1", "192.0.2.1", [0, 1], ACTIVE)
    assert "ip-1" in call("--config", str(file), "sources")[1]


def test_lanes_are_numbers(tmp_path: Path) -> None:
    code, text = call("source", "set", "ip-1", "--lanes", "first")
    assert code == 2
    assert "write 3 or 3,4" in text


def test_the_runner_makes_no_source_where_they_come_from_the_log() -> None:
    counts = {"sender": 1}
    assert "source" not in derive({}, RunSettings(), counts, from_log=True)
    assert "source" in derive({}, RunSettings(), counts)
