"""The generated documents say what the code says."""

from __future__ import annotations

from pathlib import Path

from mailfleet_cli.documents import PICTURES, metrics_page, policy_page, settings_page, stale
from mailfleet_cli.sections import SECTION_TYPES

DOCS = Path(__file__).parents[3] / "docs"


def test_the_committed_documents_are_not_stale() -> None:
    assert stale(DOCS) == []


def test_every_key_of_every_section_has_a_sentence() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]
    assert len(rows) >= sum(len(kind.__struct_fields__) for kind in SECTION_TYPES.values())
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_metric_is_listed_with_its_exposed_name() -> None:
    assert "| `mailfleet_messages_accepted_total` | counter | tenant |" in metrics_page()


def test_a_changed_page_is_seen(tmp_path: Path) -> None:
    (tmp_path / "settings.md").write_text(settings_page())
    (tmp_path / "metrics.md").write_text("old")
    (tmp_path / "policy.md").write_text(policy_page())
    (tmp_path / "pictures").mkdir()
    for name, picture in PICTURES.items():
        (tmp_path / name).write_text(picture())
    assert stale(tmp_path) == ["metrics.md"]
