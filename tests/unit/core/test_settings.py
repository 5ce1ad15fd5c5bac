"""Settings that several services share."""

from __future__ import annotations

import tomllib

import pytest

from mailfleet_core.settings import SettingsError, SettingsFile, egress
from mailfleet_sender.settings import SenderSettings

FROM_LOG = "[egress]\nsources = 'control'\n"


def file_of(text: str, **environment: str) -> SettingsFile:
    return SettingsFile(tomllib.loads(text), "test.toml", environment)


def test_items_of_a_list_come_from_the_environment_between_commas() -> None:
    file = file_of("[sender]\nlanes = [9]", MAILFLEET_SENDER__LANES="3, 4", MAILFLEET_SENDER__ALLOWED_INSIDE="")
    assert file.section("sender", SenderSettings) == SenderSettings(lanes=(3, 4), allowed_inside=())
    with pytest.raises(SettingsError, match=r"\[sender\]"):
        file_of("", MAILFLEET_SENDER__LANES="3,x").section("sender", SenderSettings)


def test_sources_that_come_from_the_log_are_not_in_the_file() -> None:
    found = egress(file_of(FROM_LOG))
    assert (found.from_log, found.sources, found.pools) == (True, (), ())
    for table in ("[[source]]\nname = 'a'", "[[pool]]\nname = 'default'\nsources = []"):
        with pytest.raises(SettingsError, match=r"so there can be no \[\[(source|pool)\]\] here"):
            egress(file_of(FROM_LOG + table))


def test_sources_of_the_file_are_a_table_as_those_of_the_log() -> None:
    found = egress(file_of("[[source]]\nname = 'a'\nlanes = 2\n[[source]]\nname = 'b'\nproxy = 'socks5://p:1080'"))
    table = found.table(16)
    assert (table.lanes("a"), table.lanes("b")) == ((0, 1), (2,))
    assert table.sources["b"].proxy == "socks5://p:1080"
    assert not found.from_log
