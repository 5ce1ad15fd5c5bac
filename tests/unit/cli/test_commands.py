"""Commands as a person or a script types them, without anything running."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mailfleet_cli import maildir
from mailfleet_cli.commanding import end_of, key_of, seconds_of
from mailfleet_cli.main import LazyGroup, mailfleet
from mailfleet_cli.output import span


def call(*arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(mailfleet, list(arguments))
    return result.exit_code, result.output + result.stderr


@pytest.mark.parametrize("name", LazyGroup.COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    code, text = call(name, "--help")
    assert code == 0
    assert text.startswith("Usage: mailfleet")


def test_without_settings_a_command_says_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = call("queues")
    assert code == 1
    assert "mailfleet run" in text


def test_a_question_that_means_nothing_is_refused_with_what_would(tmp_path: Path) -> None:
    code, text = call("trace", "hello")
    assert code == 1
    assert "neither a message id" in text


def test_the_inbox_is_listed_for_scripts_one_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mailfleet.toml"
    file.write_text("")
    maildir.create(tmp_path / "inbox")
    maildir.keep(
        tmp_path / "inbox",
        "1.a",
        "me@example.org",
        ["you@example.org"],
        b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\nx",
    )
    code, text = call("--config", str(file), "inbox", "--json")
    (mail,) = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert (mail["reverse_path"], mail["recipients"], mail["subject"]) == (
        "me@example.org",
        ["you@example.org"],
        "grüße",
    )


def test_an_address_with_a_line_break_adds_no_header_to_a_kept_mail(tmp_path: Path) -> None:
    maildir.create(tmp_path)
    maildir.keep(tmp_path, "1.a", "x\r\nSubject: forged", ["y"], b"Subject: real\r\n\r\n")
    (mail,) = maildir.stored(tmp_path)
    assert mail.message["Subject"] == "real"


def test_completion_names_the_shells_file() -> None:
    assert "~/.zshrc" in call("completion", "zsh")[1]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1d12h", 129600)])
def test_lengths_of_time_are_understood(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_a_suspension_without_an_end_lasts_until_it_is_resumed() -> None:
    assert end_of(None, None, 100.0) == 0.0
    assert end_of("10s", None, 100.0) == 110.0


def test_sites_are_suspended_whatever_the_case_of_their_name() -> None:
    assert key_of("site", "MX.Example.org") == b"suspend|site|mx.example.org"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (61, "1 min 1 s"), (90000, "1 d 1 h")])
def test_spans_are_told_in_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize("name", LazyGroup.COMMANDS)
def test_a_summary_is_short_enough_for_the_list_of_commands(name: str) -> None:
    assert f"  {name} " in (listed := call("--help")[1])
    assert LazyGroup.COMMANDS[name][1] in listed


def test_completion_offers_the_commands_that_begin_so() -> None:
    context = click.Context(mailfleet, info_name="mailfleet")
    assert [each.value for each in mailfleet.shell_complete(context, "qu")] == ["queues"]
    assert "--config" in [each.value for each in mailfleet.shell_complete(context, "--c")]


def test_help_completion_and_queues_load_neither_the_policy_nor_an_http_library() -> None:
    heavy = ("yaml", "aiohttp", "dns", "mailfleet_router", "mailfleet_ingest", "mailfleet_sender")
    code = (
        "import sys; from click.testing import CliRunner; from mailfleet_cli.main import mailfleet; import mailfleet_cli.queues;"
        "assert CliRunner().invoke(mailfleet, ['--help']).exit_code == 0;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
