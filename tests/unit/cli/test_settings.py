"""What the runner makes of the settings file."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_cli.sections import SECTION_TYPES
from mailfleet_cli.settings import RunSettings, derive, processes, toml_text
from mailfleet_core import settings
from mailfleet_core.settings import SECTIONS, RouteSettings, SettingsError, SettingsFile

words = st.text(min_size=1, max_size=5)
scalars = st.text(max_size=5) | st.integers(-(2**40), 2**40) | st.booleans() | st.floats(-1e30, 1e30)
values = (
    scalars
    | st.lists(scalars, max_size=2)
    | st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=2)
)
tables = st.dictionaries(st.text("abc_-", min_size=1, max_size=5), values, max_size=3)
names = st.sampled_from(["bus", "ingest", "router"])
arrays = st.sampled_from(["source", "route"])


def file_of(text: str) -> SettingsFile:
    return SettingsFile(tomllib.loads(text), "test.toml", {})


@given(st.dictionaries(names, tables), st.dictionaries(arrays, st.lists(tables, min_size=1, max_size=2)))
def test_settings_written_as_toml_are_read_back_as_they_were(sections: dict, arrays: dict) -> None:
    raw = {**sections, **arrays}
    assert tomllib.loads(toml_text(raw)) == raw


def test_a_misspelt_key_is_refused_with_the_right_one() -> None:
    with pytest.raises(SettingsError, match=r"\[run\] has no key 'sink_lisen'; did you mean 'sink_listen'"):
        file_of("[run]\nsink_lisen = 'x'").section("run", RunSettings)


def test_a_misspelt_section_is_refused_with_the_right_one() -> None:
    with pytest.raises(SettingsError, match=r"no section \[rout\]; did you mean 'route'"):
        file_of("[[rout]]\nname = 'x'")


def test_without_deliver_everything_goes_to_the_sink_whatever_routes_the_file_has() -> None:
    raw = {
        "route": [{"name": "office", "kind": "smart_host", "hosts": ["mail.example.org"], "domains": ["example.org"]}]
    }
    derived = SettingsFile(derive(raw, RunSettings(), {"sender": 1}), "test", {})
    first = settings.egress(derived).routes[0]
    assert (first.domains, first.hosts, first.port) == (("*",), ("127.0.0.1",), 2526)


def test_with_deliver_there_is_no_route_to_the_sink() -> None:
    derived = SettingsFile(derive({}, RunSettings(deliver=True), {"sender": 1}), "test", {})
    assert settings.egress(derived).routes == (RouteSettings(name="mx"),)


def test_the_default_source_has_a_lane_for_each_sender() -> None:
    derived = SettingsFile(derive({}, RunSettings(), {"sender": 3}), "test", {})
    assert len(settings.egress(derived).lanes()) == 3


def test_sources_in_the_file_keep_their_lanes() -> None:
    raw = {"source": [{"name": "a", "lanes": 2}]}
    assert derive(raw, RunSettings(), {"sender": 5})["source"] == raw["source"]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_small_machine_runs_one_process_of_each_service(cores: int) -> None:
    assert processes(RunSettings(), cores) == {"ingest": 1, "router": 1, "sender": 1}


def test_processes_that_are_set_are_started_whatever_the_cores() -> None:
    assert processes(RunSettings(sender_processes=4), 2)["sender"] == 4


def test_every_section_of_the_file_has_a_documented_type() -> None:
    assert {header.strip("[]").partition(".")[0] for header in SECTION_TYPES} == set(SECTIONS)
