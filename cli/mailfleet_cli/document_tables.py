"""Tables for the pages of docs/, each made by asking the code that it is about."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from mailfleet_cli import document_stories
from mailfleet_router.decisions.shaping import (
    backoff,
    import_kumomta,
    import_powermta,
    learned,
    reputation,
    responses,
    selection,
    site_health,
    warmup,
)
from mailfleet_router.decisions.shaping.meanings import Blame, Effect, ReplyClass, Scope
from mailfleet_router.decisions.shaping.policy_file import read
from mailfleet_router.decisions.shaping.reply_text import MAX_WAIT_SECONDS, MIN_WAIT_SECONDS, asked_wait, normal_text
from mailfleet_router.decisions.shaping.responses import Reading, Responses
from mailfleet_router.decisions.shaping.sample import sample
from mailfleet_router.decisions.shaping.schema import QUANTITIES, Case
from mailfleet_router.decisions.shaping.values import Citation, Facts
from mailfleet_router.shell import traffic


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, with a blank line before and after it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines) + "\n"


# --- limits --------------------------------------------------------------------------------------------------------
def _shipped_limits() -> str:
    quantities = [name for name in QUANTITIES if any(getattr(case, name) is not None for case in _cases())]
    rows = []
    for case in _cases():
        given = [getattr(case, name) for name in quantities]
        values = ["" if value is None else str(value) for value in given]
        rows.append((", ".join(case.when.provider) or "everybody else", *values, _link(case.citation)))
    return table(("to", *(f"`{name}`" for name in quantities), "from"), rows)


def _cases() -> Iterator[Case]:
    for limit in traffic.shipped().traffic.limits:
        assert limit.name == "receivers", "the page tells of one limit"
        yield from limit.cases


def _shipped_providers() -> str:
    providers = traffic.shipped().traffic.providers
    rows = ((each.name, ", ".join(f"`{pattern}`" for pattern in each.mx), _link(each.citation)) for each in providers)
    return table(("provider", "MX hosts", "how to send to it"), rows)


# --- response rules ------------------------------------------------------------------------------------------------
def words(kind: type[StrEnum]) -> str:
    """Every member of an enumeration with the sentence below it."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    sentences: dict[str, str] = {}
    for assigned, said in zip(body.body, body.body[1:], strict=False):
        if isinstance(assigned, ast.Assign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
            target = assigned.targets[0]
            assert isinstance(target, ast.Name)
            sentences[target.id] = " ".join(str(said.value.value).split())
    return table((kind.__name__.removeprefix("Reply").lower(), "meaning"),
                 ((f"`{member.value}`", sentences[member.name]) for member in kind))  # fmt: skip


def readings(file: Path) -> str:
    """The samples of a policy file's rules: what they mean without it and with it."""
    own = read(file.read_text(encoding="utf-8"), file.name)
    shipped, both = (Responses(*policy.packs()) for policy in (traffic.shipped(), traffic.load(file)))
    rows = []
    for rule in own.traffic.rules:
        facts = Facts(provider="".join(rule.applies.provider[:1]), tenant="".join(rule.applies.tenant[:1]))
        for line in (*rule.samples.match, *rule.samples.never):
            reply = sample(line)
            assert reply is not None
            rows.append((line, _reading(shipped.classify(facts, reply)), _reading(both.classify(facts, reply))))
    return table(("reply", "with the shipped rules", f"with `{file.name}`"), rows)


def _reading(reading: Reading) -> str:
    effect = "no effect" if reading.effect is Effect.NONE else f"`{reading.effect}` for `{reading.scope}`"
    return f"`{reading.reply_class}`, `{reading.blame}`, {effect}" + (f" (rule {reading.rule})" if reading.rule else "")


def _normal_texts() -> str:
    texts = (document_stories.SPEED_TEXT, "<ann@mail.example>: Recipient address rejected: User unknown",
             "Blocked, see http://bl.example/why?ip=2001:db8::7&t=1763795642")  # fmt: skip
    return table(("text of the reply", "normal text"), ((f"`{text}`", f"`{normal_text(text)}`") for text in texts))


def _waits() -> str:
    texts = ("Greylisted, please try again in 300 seconds", "Come back in 00:05:00", "Please retry after 2 hours",
             "Try again in 10 seconds", "Try again in 2 days")  # fmt: skip
    waits = [(text, asked_wait(text)) for text in texts]
    return table(("text of the reply", "waits"), ((f"`{text}`", _span(wait) if wait else "not understood")
                                                  for text, wait in waits))  # fmt: skip


# --- reputation ----------------------------------------------------------------------------------------------------
def _terms() -> str:
    of = {
        reputation.BLOCKED: "answers and block replies",
        reputation.COMPLAINED: "delivered, where complaints are reported",
    }
    return table(
        ("kind", "rate is the share of", "prior", "which counts as", "limit", "ignored below"),
        ((term.name, of.get(term.kind, "answers"), _percent(term.prior), f"{term.weight:g} answers", _percent(term.limit),
          f"{term.least} in a week") for term in reputation.TERMS),
    )  # fmt: skip


def _states() -> str:
    rows = []
    for state, name in enumerate(reputation.STATES):
        below = f"below {reputation.BORDERS[state - 1]:g}" if state else f"{reputation.BORDERS[0]:g} and more"
        leave = f"{reputation.BORDERS[state - 1] + reputation.MARGIN:g}" if state else ""
        factor = reputation.rate_factor(state)
        warm = "gains no stage" if reputation.holds_warmup(state) else "goes on"
        rows.append((name, below, leave, "as configured" if factor == 1 else f"× {factor:g}", warm))
    return table(("state", "for scores", "left at", "rate", "warm-up"), rows)


def _standings() -> str:
    return table(
        ("in one day", "rates after shrinking", "score", "score to act upon", "state"),
        ((said, rates, f"{score:.0f}", f"{acting:.0f}", f"**{state}**")
         for said, rates, score, acting, state in document_stories.standings()),
    )  # fmt: skip


def _way_back() -> str:
    return table(("hour", "what happened", "score", "state", "why"), document_stories.way_back())


def _reputation_numbers() -> str:
    rows = (
        ("an answer counts half after", _span(reputation.HALF_LIFE)),
        ("and nothing after", f"{reputation.DAYS} days"),
        ("answers that are kept", f"{reputation.ATTEMPTS:,.0f}; more push out older ones"),
        ("clean time before a state is left", f"{_span(reputation.CLEAN_SECONDS)} without a complaint or a block reply"),
        ("and the score must be above the border by", f"{reputation.MARGIN:g}"),
        ("a source in quarantine is tried every", _span(selection.PROBE_SECONDS)),
    )  # fmt: skip
    return table(("what", "how much"), rows)


# --- warm-up -------------------------------------------------------------------------------------------------------
def _plans() -> str:
    rows = []
    for plan in sorted(warmup.PLANS.values(), key=lambda plan: plan.name):
        caps = [f"{plan.cap(day - 1):,}" if day <= len(plan.day_caps) else "no limit" for day in (1, 7, 14, 30)]
        rows.append((f"`{plan.name}`", str(len(plan.day_caps)), *caps, _percent(plan.hour_share), _link(plan.citation)))
    return table(("plan", "stages", "stage 1", "stage 7", "stage 14", "stage 30", "most in an hour", "from"), rows)


def _caps() -> str:
    return "".join(
        f"\n`{name}`: {', '.join(f'{cap:,}' for cap in plan.day_caps)}.\n" for name, plan in sorted(warmup.PLANS.items())
    ) + "\n"  # fmt: skip


def _turns() -> str:
    return table(("yesterday", "then", "why"), document_stories.turns())


def _warm_up_numbers() -> str:
    rows = (
        ("advance", f"{warmup.USED_SHARE:.0%} or more of the cap was delivered, and nothing below holds or leads back"),
        ("hold", f"{warmup.HOLD_DEFERRED:.0%} or more were deferred; or complaints about {_percent(warmup.HOLD_COMPLAINTS)} "
                 "or more; or the source's standing there is slow or quarantine; or less than the share above was delivered"),
        (f"{warmup.STAGES_BACK} stages back", f"any reply of a block class; or more than {warmup.BACK_DEFERRED:.0%} were "
                                              f"deferred, {warmup.LEAST_DEFERRED} at least"),
        ("one stage back", f"each {warmup.IDLE_DAYS} days in a row with less than {warmup.IDLE_SHARE:.0%} of the cap"),
        ("begin anew", f"{warmup.RESTART_DAYS} days without any mail"),
    )  # fmt: skip
    return table(("step", "when"), rows)


# --- back-off ------------------------------------------------------------------------------------------------------
def _back_off_numbers() -> str:
    rows = (
        ("`slow`: rate and connections", f"× 1/2, at most once in {_span(backoff.HALVE_SECONDS)}"),
        ("clean time that raises them", f"{_span(backoff.STEP_SECONDS)}, each time by a tenth of the configured limit"),
        ("floor, and rate of a probe", f"{backoff.FLOOR_PER_SECOND * 60:g} message a minute on one connection"),
        ("first pause", f"{_span(backoff.MIN_PAUSE_SECONDS)}, or the rule's `ttl` if that is longer"),
        ("next pauses", f"twice the one before, up to {_span(backoff.MAX_PAUSE_SECONDS)}"),
        ("pauses begin at the shortest again", f"after a clean time as long as the last pause, {_span(backoff.FORGET_SECONDS)} "
                                               "at least"),
        ("where the policy sets no rate", "the pace at the first hit counts as the limit until all is well again"),
        ("rounds of failed connections that are believed", str(site_health.ROUNDS)),
        ("sources that must fail before a site is dead", f"{site_health.ENOUGH_SOURCES}, or all where there are fewer"),
        ("probes of what is dead or blocked", f"after {_span(site_health.MIN_WAIT_SECONDS)}, doubling up to "
                                              f"{_span(site_health.MAX_WAIT_SECONDS)}"),
        ("waits that a reply may ask for", f"{_span(MIN_WAIT_SECONDS)} to {_span(MAX_WAIT_SECONDS)}"),
    )  # fmt: skip
    return table(("what", "how much"), rows)


def _back_off_story() -> str:
    return table(("minute", "what happened", "what follows", "until minute", "next"), document_stories.back_off_table())


def _dead_site() -> str:
    return table(("minute", "what happened", "what is believed"), document_stories.dead_site())


# --- other systems -------------------------------------------------------------------------------------------------
def _directives(equivalents: Iterator[tuple[str, str]]) -> str:
    return table(("there", "here"), ((f"`{name}`", ours) for name, ours in equivalents))


def _span(seconds: float) -> str:
    units = (("hour", 3600), ("minute", 60), ("second", 1))
    unit, size = next((each for each in units if seconds >= each[1]), units[-1])
    count = f"{seconds / size:g}"
    return f"{count} {unit}" + ("" if count == "1" else "s")


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _link(citation: Citation | None) -> str:
    return f"[{citation.url.split('/')[2]}]({citation.url}), {citation.date}" if citation else ""


TABLES: dict[str, Callable[[], str]] = {
    "shipped-limits": _shipped_limits,
    "shipped-providers": _shipped_providers,
    "reply-classes": lambda: words(ReplyClass),
    "blames": lambda: words(Blame),
    "effects": lambda: words(Effect),
    "scopes": lambda: words(Scope),
    "phases": lambda: f"\n{', '.join(f'`{phase}`' for phase in responses.PHASES)}.\n\n",
    "normal-texts": _normal_texts,
    "waits": _waits,
    "block-classes": lambda: f"\n{', '.join(f'`{each}`' for each in sorted(learned.BLOCKS))}.\n\n",
    "reputation-terms": _terms,
    "reputation-numbers": _reputation_numbers,
    "reputation-states": _states,
    "reputation-examples": _standings,
    "reputation-way-back": _way_back,
    "warm-up-plans": _plans,
    "warm-up-caps": _caps,
    "warm-up-numbers": _warm_up_numbers,
    "warm-up-turns": _turns,
    "back-off-numbers": _back_off_numbers,
    "back-off-story": _back_off_story,
    "dead-site": _dead_site,
    "from-kumomta": lambda: _directives(import_kumomta.equivalents()),
    "from-powermta": lambda: _directives(import_powermta.equivalents()),
}
"""What a page may ask for by name."""
