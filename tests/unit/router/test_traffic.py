"""The policy that the package ships, and one's own over it."""

from importlib.resources import files

import pytest

from mailfleet_core.model.site import PROVIDERS, site_name
from mailfleet_core.settings import SettingsFile
from mailfleet_router.decisions.shaping.limits import provider_of
from mailfleet_router.decisions.shaping.responses import Responses
from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.decisions.shaping.warmup import BIG_FOUR
from mailfleet_router.shell.traffic import load, own_file, present, shipped


def settings(origin, **router):
    return SettingsFile({"router": router}, str(origin), {})


def test_both_shipped_files_are_one_policy_whose_parts_know_their_line():
    policy = shipped()
    assert policy.traffic.limits
    assert policy.place("limits", 0).origin.endswith("/traffic.yaml")
    assert policy.place("rules", 0).origin.endswith("/responses.yaml")
    number = next(n for n, rule in enumerate(policy.traffic.rules) if rule.name == "google-spam")
    text = (files("mailfleet_router") / "policy" / "responses.yaml").read_text(encoding="utf-8").splitlines()
    assert text[policy.place("rules", number).line - 1] == "- name: google-spam"
    Responses(*policy.packs())


def test_providers_are_called_the_same_everywhere():
    traffic = shipped().traffic
    known = {provider.name for provider in traffic.providers}
    named = {name for rule in traffic.rules for name in rule.applies.provider}
    named |= {name for limit in traffic.limits for case in limit.cases for name in case.when.provider}
    assert named <= known
    assert set(BIG_FOUR) <= known


def test_sites_are_named_by_exactly_the_providers_of_the_shipped_policy():
    patterns = [(pattern, provider.name) for provider in shipped().traffic.providers for pattern in provider.mx]
    assert sorted(patterns) == sorted((f"*{suffix}", name) for suffix, name in PROVIDERS)
    for suffix, name in PROVIDERS:
        hosts = [f"mx1{suffix}", f"MX2{suffix}."]
        assert provider_of(shipped().traffic.providers, hosts) == site_name(hosts) == name


def test_an_own_file_is_the_one_that_is_named_or_lies_beside_the_settings(tmp_path):
    origin = tmp_path / "mailfleet.toml"
    assert own_file(settings(origin)) is None
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    assert own_file(settings(origin)) == tmp_path / "policy.yaml"
    assert str(own_file(settings(origin, policy_file="/etc/other.yaml"))) == "/etc/other.yaml"


def test_an_own_file_may_come_later_into_a_directory_that_is_there(tmp_path):
    assert present(None) is None
    assert present(tmp_path / "policy.yaml") is None
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    assert present(tmp_path / "policy.yaml") == tmp_path / "policy.yaml"
    assert present(tmp_path / "misspelt" / "policy.yaml") == tmp_path / "misspelt" / "policy.yaml"


def test_an_own_file_is_put_over_the_shipped_policy_or_stands_alone(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nrules: [{name: mine, effect: slow}]\n")
    assert [len(pack) for pack in load(path).packs()] == [1, len(shipped().traffic.rules)]
    path.write_text("version: 1\nbase: none\n")
    assert load(path).traffic.rules == ()
    assert load(None).traffic == shipped().traffic


def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(PolicyError, match=r"gone.yaml cannot be read: No such file"):
        load(tmp_path / "gone.yaml")
    (tmp_path / "latin").write_bytes(b"version: 1 # \xe9")
    with pytest.raises(PolicyError, match=r"latin: not UTF-8"):
        load(tmp_path / "latin")
