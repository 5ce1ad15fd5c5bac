"""Pages that people write: their parts come from the code, their examples are read and tried, their links lead somewhere."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from mailfleet_cli import document_stories
from mailfleet_cli.document_tables import TABLES, words
from mailfleet_cli.documents import stale
from mailfleet_cli.written_pages import UnknownPart, filled, written_pages
from mailfleet_core.model import reputation as formula
from mailfleet_router.decisions.shaping import reputation
from mailfleet_router.decisions.shaping.check import ERROR, check
from mailfleet_router.decisions.shaping.meanings import Blame, Effect, ReplyClass, Scope
from mailfleet_router.decisions.shaping.policy_file import Policy, over, read
from mailfleet_router.decisions.shaping.responses import Responses
from mailfleet_router.decisions.shaping.sample import sample
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.shell.traffic import shipped

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = ["limits.md", "response-rules.md", "reputation.md", "warm-up.md", "back-off.md", "from-kumomta-and-powermta.md"]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
WRONG = "- name: any-trouble\n"
"""In the block that shows what a mistake looks like."""


SHIPPED = shipped()


def blocks() -> list[tuple[str, int, str]]:
    found = []
    for page in PAGES:
        for number, block in enumerate(_BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))):
            found.append((page, number, block))
    return found


@pytest.mark.parametrize(("page", "number", "text"), [block for block in blocks() if WRONG not in block[2]])
def test_every_policy_on_a_page_can_be_read_and_has_no_errors(page: str, number: int, text: str) -> None:
    policy = over(read(text, f"{page} block {number}"), SHIPPED)
    assert [str(finding) for finding in check(policy) if finding.severity == ERROR] == []


def rules_with_samples() -> list[tuple[Policy, int]]:
    policies = [read(text, page) for page, _, text in blocks() if page == "response-rules.md" and WRONG not in text]
    return [(policy, index) for policy in policies for index in range(len(policy.traffic.rules))]


@pytest.mark.parametrize(("own", "index"), rules_with_samples())
def test_every_rule_on_the_page_about_rules_reads_its_samples_before_the_shipped_ones(own: Policy, index: int) -> None:
    rule = own.traffic.rules[index]
    assert rule.samples.match, f"{rule.name} shows no sample"
    given = {field: "".join(getattr(rule.applies, field)[:1]) for field in ("provider", "tenant", "domain")}
    everything = Responses(*over(own, SHIPPED).packs())
    for line in rule.samples.match:
        reply = sample(line)
        assert reply is not None
        assert everything.classify(Facts(**given), reply).rule == rule.name
    for line in rule.samples.never:
        reply = sample(line)
        assert reply is not None
        assert everything.classify(Facts(**given), reply).rule != rule.name


def test_the_block_that_is_wrong_is_wrong_in_the_ways_that_the_page_tells() -> None:
    wrong = [text for _, _, text in blocks() if WRONG in text]
    assert len(wrong) == 1
    said = [str(finding) for finding in check(read(wrong[0], "wrong.yaml"))]
    page = (DOCS / "response-rules.md").read_text(encoding="utf-8")
    assert len(said) == 3
    assert all(line in page for line in said)


def test_each_page_has_made_parts_and_is_looked_at() -> None:
    assert set(PAGES) <= set(written_pages(DOCS))


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("decisions/*.md")), *ROOT.glob("*.md")])
def test_links_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    for name, heading in _LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {name}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = ["#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{page.name}: {name}{heading}"


@pytest.mark.parametrize("kind", [ReplyClass, Blame, Effect, Scope])
def test_every_word_has_a_sentence(kind: type[ReplyClass]) -> None:
    rows = [line.split(" | ") for line in words(kind).splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == [member.value for member in kind]
    assert all(len(row[1]) > 10 for row in rows)


def test_what_a_page_shows_is_made_anew_and_a_change_of_it_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "examples" / "page").mkdir(parents=True)
    (tmp_path / "examples" / "page" / "p.yaml").write_text("version: 1\n")
    page.write_text(
        "before\n<!-- made: table scopes -->\n<!-- end -->\nbetween\n<!-- made: run mailfleet policy check p.yaml -->\n"
        "something else\n<!-- end -->\nafter\n"
    )
    text = filled(page)
    assert TABLES["scopes"]() in text
    assert "$ mailfleet policy check p.yaml\nok   p.yaml\n" in text
    assert "something else" not in text
    assert [line for line in text.splitlines() if line in ("before", "between", "after")] == [
        "before",
        "between",
        "after",
    ]
    assert "page.md" in stale(tmp_path)
    page.write_text(text)
    assert "page.md" not in stale(tmp_path)


@pytest.mark.parametrize(
    "part", ["table nothing", "file gone.yaml", "run rm -r /", "run mailfleet --config gone trace x@y"]
)
def test_a_part_that_cannot_be_made_is_refused(tmp_path: Path, part: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"<!-- made: {part} -->\n<!-- end -->\n")
    with pytest.raises(UnknownPart, match=part.split()[1]):
        filled(page)


def test_a_part_whose_end_was_forgotten_swallows_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- made: table scopes -->\ntext\n<!-- made: table effects -->\n<!-- end -->\n")
    with pytest.raises(UnknownPart, match=r"page.md: a part has no end"):
        filled(page)


def test_times_on_a_page_are_utc_wherever_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert filled(DOCS / "response-rules.md") == (DOCS / "response-rules.md").read_text(encoding="utf-8")


# --- the stories say what the pages say about them ------------------------------------------------------------------
def test_the_examples_of_reputation_are_those_that_the_page_promises() -> None:
    states = {said: state for said, _, _, _, state in document_stories.standings()}
    assert states["10,000 delivered"] == "good"
    assert states["9,000 delivered, 10 % hard bounces"] == states["10,000 delivered, 0.3 % complaints"] == "quarantine"
    assert states["a small sender: 47 delivered, 3 bounced"] == "good"


def test_the_formula_on_the_page_is_the_one_that_is_computed() -> None:
    page = (DOCS / "reputation.md").read_text(encoding="utf-8")
    assert f"score = 100 × exp(\u2212{formula._STEEPNESS} × sum of all excesses)" in page
    term = reputation.TERMS[1]
    rate = (500 + term.weight * term.prior) / (10_000 + term.weight)
    expected = 100 * math.exp(-1.25 * (rate - term.prior) / (term.limit - term.prior))
    shown = {said: number for said, _, number, _, _ in document_stories.standings()}
    assert shown["9,500 delivered, 5 % hard bounces"] == pytest.approx(expected)


def test_the_story_of_back_off_has_a_halving_that_is_no_news_a_doubled_pause_and_an_end() -> None:
    moments, rates = document_stories.back_off_story()
    told = {moment.minute: moment.change.what if moment.change else "" for moment in moments}
    assert (told[10], told[10.5], told[12]) == ("slowed to 50 %", "", "slowed to 25 %")
    assert (told[55], told[56], told[61]) == ("paused for 5 minutes", "", "paused for 10 minutes")
    assert dict(rates)[11] == 30
    assert dict(rates)[57] == 0
    assert dict(rates)[60] == 1
    assert rates[-1][1] == 60


def test_the_site_of_the_story_is_blocked_then_dead_then_alive() -> None:
    believed = [what for _, _, what in document_stories.dead_site()]
    assert believed[0] == "nothing new"
    assert believed[3] == "mail.example does not let ip-1 in"
    assert believed[6].startswith("mail.example is dead")
    assert believed[-1] == "mail.example answers again"
