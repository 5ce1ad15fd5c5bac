"""`mailfleet policy` as a process: what it prints where, and its exit code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from support import addresses
from support.dns_server import DnsServer

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))


def policy(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAILFLEET, "policy", *words], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_file_is_imported_then_found_well_then_explained(tmp_path: Path) -> None:
    (tmp_path / "shaping.toml").write_text(
        '["default"]\nconnection_limit = 3\nidle_timeout = "60s"\n'
        '[provider."yahoo"]\nmatch = [{MXSuffix=".yahoodns.net"}]\nconnection_limit = 2\n'
    )
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "mailfleet.toml").write_text("")
    imported = policy(tmp_path, "import", "--from", "kumomta", "shaping.toml", "--output", "var/policy.yaml")
    assert imported.returncode == 0
    assert imported.stderr == "shaping.toml:3: [default] idle_timeout = '60s': timeouts are settings of [sender]\n"
    checked = policy(tmp_path, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    told = policy(tmp_path, "explain", "shop", "a@yahoo.example", "--mx", "mta5.am0.yahoodns.net", "--json")
    (concurrency,) = [
        limit for limit in json.loads(told.stdout)["limits"] if limit["quantity"] == "concurrency" and limit["decides"]
    ]
    assert (told.returncode, concurrency["value"], concurrency["limit"]) == (0, 2, "receivers")
    assert concurrency["place"].endswith("/var/policy.yaml:13")


def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\nrules:\n- name: busy\n  text: '['\n")
    checked = policy(tmp_path, "check", "policy.yaml")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr.startswith("error: policy.yaml:4: rules[0].text: '[' is no regular expression: ")
    assert checked.stderr.count("\n") == 1


async def test_without_mx_the_dns_of_the_settings_is_asked(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    async with DnsServer({("example.org", "MX"): (60, ["10 aspmx.l.google.com."])}) as server:
        (tmp_path / "var" / "mailfleet.toml").write_text(f'[dns]\nnameservers = ["127.0.0.1:{server.port}"]\n')
        told = await asyncio.to_thread(policy, tmp_path, "explain", "shop", "a@example.org", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["mx"] == ["aspmx.l.google.com"]
    assert json.loads(told.stdout)["facts"]["site"] == "google"


def test_without_mx_the_silence_of_the_dns_is_told(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "mailfleet.toml").write_text(
        f'[dns]\nnameservers = ["127.0.0.1:{addresses.free_port()}"]\ntimeout_seconds = 1\n'
    )
    told = policy(tmp_path, "explain", "shop", "a@example.org")
    assert told.returncode == 1
    assert told.stderr.startswith("error: the DNS does not say where mail for example.org goes (")
    assert told.stderr.endswith("); try again, or name the hosts with --mx\n")
