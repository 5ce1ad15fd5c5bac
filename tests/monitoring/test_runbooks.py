"""Runbooks: one for each alert, their commands can be typed, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mailfleet_cli.main import LazyGroup, mailfleet
from mailfleet_monitoring import expressions

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks"
ALERTS = {rule["alert"]: rule for rule in expressions.rules() if "alert" in rule}
PAGES = sorted(path.stem for path in RUNBOOKS.glob("*.md"))
OPERATIONS = {
    "rolling-upgrade", "router-hand-over", "node-drain", "scale-up-and-down", "kafka-rolling-restart", "certificate-rotation",
    "uninstall",
}  # fmt: skip
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)\)")
_INLINE = re.compile(r"`mailfleet ([a-z]+)[^`]*`")

KUBECTL = {
    "annotate", "apply", "auth", "cordon", "create", "delete", "describe", "drain", "edit", "exec", "get", "logs", "rollout",
    "scale", "top", "uncordon", "wait",
}  # fmt: skip
HELM = {"rollback", "status", "test", "uninstall", "upgrade"}
WORKLOADS = {"statefulset/mailfleet-router", "deployment/mailfleet-ingest", "deployment/mailfleet-operator"}
"""As the chart names them."""
COMPONENTS = {"ingest", "router", "sender", "operator", "egress"}
OTHERS = {"grep", "openssl", "alias"}


def text(page: str) -> str:
    return (RUNBOOKS / f"{page}.md").read_text(encoding="utf-8")


def lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in _BLOCK.findall(text(page)):
            yield from ((page, line) for line in block.splitlines() if line and not line.startswith("#"))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command with its arguments, those of a pipe one by one."""
    for page, line in lines():
        words = shlex.split(line)
        while words:
            end = next((place for place, word in enumerate(words) if word in ("|", "&&", ">")), len(words))
            command, separator, words = words[:end], words[end : end + 1], words[end + 1 :]
            yield page, command
            if separator == [">"]:
                break


def those_of(program: str) -> list[tuple[str, list[str]]]:
    return [(page, command[1:]) for page, command in commands() if command[0] == program]


def name(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize(("page", "arguments"), those_of("mailfleet"), ids=name)
def test_our_commands_parse(page: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word in arguments:
        if word.endswith(".yaml"):
            Path(word).write_text("version: 1\n")
    with mailfleet.make_context("mailfleet", list(arguments)) as group:
        rest = [*group._protected_args, *group.args]
        command: click.Command = mailfleet
        while isinstance(command, click.Group):
            _, found, rest = command.resolve_command(group, rest)
            assert found is not None
            command = found
        command.make_context(command.name, rest, parent=group)


def test_a_command_that_does_not_parse_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.UsageError):
        test_our_commands_parse("page", ["bounce", "--sit", "x", "--reason", "y"], tmp_path, monkeypatch)


@pytest.mark.parametrize(("page", "arguments"), those_of("kubectl"), ids=name)
def test_kubectl_is_asked_for_what_the_chart_makes(page: str, arguments: list[str]) -> None:
    words = arguments[2:] if arguments[0] == "-n" else arguments
    assert words[0] in KUBECTL
    if arguments[:2] == ["-n", "mail"]:
        named = {word for word in words if re.match(r"(statefulset|deployment|daemonset)/", word)}
        assert named <= WORKLOADS
    selected = {word.rpartition("=")[2] for word in words if word.startswith("app.kubernetes.io/component=")}
    assert selected <= COMPONENTS


@pytest.mark.parametrize(("page", "arguments"), those_of("helm"), ids=name)
def test_helm_is_asked_for_the_release(page: str, arguments: list[str]) -> None:
    assert arguments[:2] == ["-n", "mail"]
    assert arguments[2] in HELM
    assert arguments[3] == "mailfleet"


def test_nothing_else_is_typed() -> None:
    assert {command[0] for _, command in commands()} <= {"mailfleet", "kubectl", "helm", *OTHERS}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    content = text(page)
    assert set(_INLINE.findall(content)) <= {*LazyGroup.COMMANDS}
    for target in _LINK.findall(content):
        assert (RUNBOOKS / target).exists(), target


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_runbook_says_what_it_means_where_to_look_and_what_to_do(alert: str) -> None:
    content = text(alert)
    assert content.startswith(f"# {alert}\n")
    for part in ("**What it means.**", "**Look.**", "**Do.**"):
        assert part in content
    assert _BLOCK.search(content), "there is a command to look with"


def test_there_are_runbooks_for_all_alerts_and_operations_and_for_nothing_else() -> None:
    assert set(PAGES) == {"README", *ALERTS, *OPERATIONS}


def test_the_list_names_all_of_them_with_their_severities() -> None:
    listed = dict(re.findall(r"^\| \[(Mailfleet\w+)\]\(\1\.md\) \| ([a-z, ]+) \|", text("README"), re.MULTILINE))
    severities: dict[str, set[str]] = {}
    for rule in (rule for rule in expressions.rules() if "alert" in rule):
        severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    assert {alert: set(words.split(", ")) for alert, words in listed.items()} == severities
    assert all(f"({operation}.md)" in text("README") for operation in OPERATIONS)
