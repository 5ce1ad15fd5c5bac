"""`mailfleet policy` as a person or a script types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailfleet_cli.main import mailfleet
from mailfleet_router.decisions.shaping.policy_file import read

YAHOO = ("--mx", "mta5.am0.yahoodns.net", "--mx", "MTA6.am0.yahoodns.net.")
TWO_SOURCES = """\
[[source]]
name = "ip-1"
[[source]]
name = "ip-2"
[[route]]
domains = ["inside.example"]
kind = "smart_host"
name = "office"
hosts = ["10.0.0.9"]
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(mailfleet, ["policy", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings(here: Path) -> Path:
    """Settings with two sources, where they usually are."""
    path = here / "var" / "mailfleet.toml"
    path.parent.mkdir()
    path.write_text(TWO_SOURCES)
    return path


def own(settings: Path, text: str) -> Path:
    path = settings.parent / "policy.yaml"
    path.write_text("version: 1\n" + text)
    return path


def test_without_settings_the_shipped_policy_is_looked_at_and_is_well(here: Path) -> None:
    result = call("check")
    assert (result.exit_code, result.stdout) == (0, "ok   the shipped policy\n")


def test_the_file_beside_the_settings_is_looked_at_with_their_names(settings: Path) -> None:
    path = own(settings, "limits: [{name: l, cases: [{if: {source: [ip-3]}, message_rate: 1/s}]}]")
    result = call("check")
    assert result.exit_code == 1
    assert result.stdout == f"{path}:2: error: there is no source 'ip-3'; did you mean 'ip-2'?\n"


def test_the_file_that_the_settings_name_is_looked_at_instead(settings: Path) -> None:
    own(settings, "limits: [{name: l, cases: [{if: {source: [ip-3]}, message_rate: 1/s}]}]")
    settings.write_text(f'[router]\npolicy_file = "{settings.parent}/other.yaml"\n' + TWO_SOURCES)
    (settings.parent / "other.yaml").write_text("version: 1\n")
    assert call("check").exit_code == 0


def test_warnings_are_told_but_are_no_error(here: Path) -> None:
    (here / "p.yaml").write_text("version: 1\nproviders:\n- name: a\n")
    result = call("check", "p.yaml", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "severity": "warning", "file": "p.yaml", "line": 3,
        "text": "provider 'a' has neither mx nor domains: nobody is it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n- name: busy\n  text: '(x'", "error: p.yaml:4: rules[0].text: '(x' is no regular expression"),
        ("limit: []", "error: p.yaml:2: the policy has no key 'limit'; did you mean 'limits'?"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_its_line(here: Path, text: str, said: str) -> None:
    (here / "p.yaml").write_text("version: 1\n" + text)
    result = call("check", "p.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_told(here: Path) -> None:
    assert call("check", "p.yaml").stderr == "error: p.yaml cannot be read: No such file or directory\n"


def test_each_limit_is_explained_with_its_line_once_for_sources_that_have_the_same(settings: Path) -> None:
    own(
        settings,
        "limits:\n- name: slowly\n  per: [source, site]\n  cases:\n  - {if: {tenant: [shop]}, message_rate: 5/s}",
    )
    lines = call("explain", "shop", "a@yahoo.example", *YAHOO).stdout.splitlines()
    assert lines[0] == "Mail goes to mta5.am0.yahoodns.net, mta6.am0.yahoodns.net."
    assert lines[1].endswith("pool default, source ip-1, ip-2, site yahoo, provider yahoo, domain yahoo.example:")
    assert lines[2] == f"  message_rate 5/s: slowly, case 1, {settings.parent}/policy.yaml:6; kept by the router"
    assert any(
        line.startswith("  concurrency 10: receivers, case 1, mailfleet_router/policy/traffic.yaml:") for line in lines
    )
    assert sum(line.startswith("Limits for") for line in lines) == 1


def test_sources_that_differ_are_explained_apart(settings: Path) -> None:
    own(settings, "limits: [{name: l, per: [source, site], cases: [{if: {source: [ip-2]}, message_rate: 5/s}]}]")
    lines = call("explain", "shop", "yahoo.example", *YAHOO).stdout.splitlines()
    assert [line.split("source ")[1].split(",")[0] for line in lines if line.startswith("Limits for")] == [
        "ip-1",
        "ip-2",
    ]
    assert sum("message_rate 5/s" in line for line in lines) == 1


def test_explanations_are_for_scripts_one_object_a_source(settings: Path) -> None:
    told = [json.loads(line) for line in call("explain", "shop", "yahoo.example", *YAHOO, "--json").stdout.splitlines()]
    assert [each["facts"]["source"] for each in told] == ["ip-1", "ip-2"]
    assert {limit["quantity"]: limit["value"] for limit in told[0]["limits"]} == {
        "concurrency": 10, "messages_per_connection": 20,
    }  # fmt: skip
    (one,) = call("explain", "shop", "yahoo.example", *YAHOO, "--json", "--source", "ip-2").stdout.splitlines()
    assert json.loads(one)["facts"]["source"] == "ip-2"


def test_a_domain_whose_next_hop_is_set_is_of_that_routes_site_and_the_dns_is_not_asked(settings: Path) -> None:
    (told, _) = call("explain", "shop", "me@inside.example", "--json").stdout.splitlines()
    assert json.loads(told)["facts"]["site"] == "office"
    assert json.loads(told)["mx"] == ["10.0.0.9"]


def test_a_provider_of_ones_own_gives_its_sites_no_name_for_the_router_does_not_either(settings: Path) -> None:
    own(settings, "providers: [{name: hoster, mx: ['*.b.example']}]")
    told = call("explain", "shop", "a@b.example", "--source", "ip-1", "--mx", "mx1.b.example", "--json").stdout
    facts = json.loads(told)["facts"]
    assert (facts["site"], facts["provider"]) == ("mx1.b.example", "hoster")


def test_a_site_without_a_provider_is_called_as_the_router_calls_it(settings: Path) -> None:
    (told, _) = call("explain", "shop", "a@b.example", "--mx", "mx1.b.example", "--json").stdout.splitlines()
    assert (json.loads(told)["facts"]["site"], json.loads(told)["facts"]["provider"]) == ("mx1.b.example", "")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--source", "ip-3"), "error: there is no source 'ip-3'; did you mean 'ip-2'?\n"),
        (("--pool", "defualt"), "error: there is no pool 'defualt'; did you mean 'default'?\n"),
        (("--stream", "bluk"), "error: there is no stream 'bluk'; did you mean 'bulk'?\n"),
    ],
)
def test_a_name_that_nobody_knows_is_refused_with_the_nearest(
    settings: Path, option: tuple[str, str], said: str
) -> None:
    result = call("explain", "shop", "yahoo.example", *YAHOO, *option)
    assert (result.exit_code, result.stderr) == (1, said)


KUMOMTA = """\
["default"]
connection_limit = 10
enable_tls = "Opportunistic"
[["default".automation]]
regex = "busy"
action = "Suspend"
"""


def test_an_imported_policy_is_printed_and_can_be_read_and_what_is_missing_is_told_apart(here: Path) -> None:
    (here / "k.toml").write_text(KUMOMTA)
    result = call("import", "--from", "kumomta", "k.toml")
    assert result.exit_code == 0
    assert read(result.stdout, "f").traffic.limits[0].cases[0].concurrency == 10
    assert result.stderr.splitlines() == [
        "k.toml:3: [default] enable_tls = 'Opportunistic': TLS is a setting of a [[route]]",
        "the rules have no class: give each its `class` and `blame`; statistics are kept under them",
    ]


def test_an_imported_policy_is_written_over_nothing(here: Path) -> None:
    (here / "p.conf").write_text("<domain *>\n max-smtp-out 20\n</domain>\n")
    assert call("import", "--from", "powermta", "p.conf", "--output", "new.yaml").exit_code == 0
    assert call("check", "new.yaml").exit_code == 0
    again = call("import", "--from", "powermta", "p.conf", "--output", "new.yaml")
    assert (again.exit_code, again.stderr) == (
        1,
        "error: new.yaml exists already; remove it, or give --output another name\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kumomta", "bad"), "error: bad: not TOML: "),
        (("kumomta", "gone"), "error: gone cannot be read: No such file or directory"),
        (("powermta", "bad", "bad"), "error: PowerMTA has one configuration file"),
        (("powermta", "bytes"), "error: bytes is not text in UTF-8"),
        (("powermta", "bad", "--output", "no/where"), "error: no/where cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line(here: Path, words: tuple[str, ...], said: str) -> None:
    (here / "bad").write_text("[")
    (here / "bytes").write_bytes(b"\xff\xfe")
    result = call("import", "--from", *words)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert result.stdout == ""
