"""`mailfleet site`: everything about one site: its queue, its pace, its limits, what it answered last."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_core.clock import SystemClock
from mailfleet_core.settings import SettingsFile


@click.command()
@click.argument("site")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each partition that knows the site.")
@click.pass_obj
def site(invocation: Invocation, site: str, as_json: bool) -> None:
    """Show one SITE: rates now against limits, window, learned state, last replies, pending by age, who has how much.

    A recipient's domain will do if it is the name of its site; `mailfleet queues` has the names of those with mail.
    """
    pages = reading.run(_ask(invocation.file(), site))
    for page in pages:
        if as_json:
            output.json(page)
        else:
            for line in lines(page, SystemClock.now()):
                output.out.print(line)
    if not pages:
        output.fail(
            f"no router has mail for a site {site!r}, or sent it any lately; `mailfleet queues` has their names"
        )


async def _ask(file: SettingsFile, site: str) -> list[dict[str, Any]]:
    async with reading.opened(file) as bus:
        routers = reading.members(await reading.control(bus), "router")
    answers = await reading.ask(routers, f"/api/site/{quote(site.lower(), safe='')}")
    if not answers:
        output.fail("no router answers; start them with `mailfleet run` or `python -m mailfleet_router`")
    return [page for answer in answers for page in answer]


def lines(page: dict[str, Any], now: float) -> list[str]:
    """A router's page for people, in rich's markup."""
    where = f"partition {page['partition']}, router {output.clean(page['router'])}"
    return [
        f"[bold]{output.clean(page['site'])}[/]  [dim]{where}[/]",
        *_queue(page["queue"], now),
        *_pace(page["pace"]),
        *_window(page["window"]),
        *_shaping(page.get("shaping") or {}, now),
        *_replies(page["pace"].get("replies", {})),
    ]


def _label(text: str, style: str = "bold") -> str:
    return f"  [{style}]{text:<13}[/] "


def _queue(queue: dict[str, Any], now: float) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(queue["states"].items())) or "nothing"
    found = [_label("queue") + f"{states}"]
    if queue["waiting"]:
        found.append(_label("by age") + f"{_ages(queue['ages'])}; the oldest {output.span(now - queue['oldest_at'])}")
        found.append(_label("tenants") + f"{_shares(queue['tenants'], queue['waiting'])}")
        found.append(_label("streams") + f"{_shares(queue['streams'], queue['waiting'])}")
    if len(queue["domains"]) > 1:
        found.append(_label("domains") + f"{_shares(queue['domains'], queue['waiting'])}")
    if queue["next_at"]:
        found.append(_label("next due") + f"{output.clock(queue['next_at'])}")
    for hold in queue.get("holds", ()):
        until = f" until {output.clock(hold['until'])}" if hold["until"] else ""
        found.append(_label("held", "yellow") + f"{output.clean(hold['reason'])}{until}, by {output.clean(hold['by'])}")
    return found


def _ages(ages: list[dict[str, Any]]) -> str:
    parts, before = [], "0"
    for each in ages:
        bound = output.span(each["up_to_seconds"]) if each["up_to_seconds"] else ""
        if each["units"]:
            parts.append(f"{each['units']} {'up to ' + bound if bound else 'over ' + before}")
        before = bound
    return ", ".join(parts)


def _shares(counts: dict[str, int], total: int) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{output.clean(name or '(none)')} {count} ({count / max(1, total):.0%})" for name, count in largest[:8]]
    return ", ".join(shown) + (f" and {len(largest) - 8} more" if len(largest) > 8 else "")


def _pace(pace: dict[str, Any]) -> list[str]:
    tried, seconds = sum(pace["attempts"].values()), pace["seconds"]
    if not tried and not pace["outcomes"]:
        return [_label("pace") + f"nothing was tried in the last {output.span(seconds)}"]
    sources = ", ".join(
        f"{output.clean(name)} {count / seconds:.3g}" for name, count in sorted(pace["attempts"].items())
    )
    ends = ", ".join(f"{count} {verdict}" for verdict, count in sorted(pace["outcomes"].items())) or "no answer yet"
    speed = f"{pace['per_second']:.3g} attempts per second in the last {output.span(seconds)}"
    return [
        _label("pace") + f"{speed}; by source: {sources}",
        _label("ended") + f"{ends}",
        *([_label("served") + f"{_shares(pace['tenants'], tried)}"] if tried else []),
    ]  # fmt: skip


def _window(window: dict[str, Any]) -> list[str]:
    rate = f"; at most {window['messages_per_second']:g} messages per second" if window["messages_per_second"] else ""
    now = ", used up now" if window["waits_for_rate"] else ""
    where = f"  [dim]{output.clean(window['where'])}[/]"
    return [_label("window") + f"{window['in_flight']} of {window['most'] or '-'} in senders' hands{rate}{now}{where}"]


def _shaping(shaping: dict[str, Any], now: float) -> list[str]:
    """What the traffic policy and the site's answers make of it."""
    if not shaping:
        return []
    provider = output.clean(shaping.get("provider") or "none")
    applies = (
        ""
        if shaping.get("policy_applies", True)
        else "; the policy's limits do not apply: it is a route of the settings"
    )
    found = [_label("provider") + provider + applies]
    if shaping.get("health", {}).get("dead"):
        found.append(
            _label("dead", "red")
            + f"it does not answer; tried again {output.moment(shaping['health']['probe_at'], now)}"
        )
    for name, source in sorted(shaping.get("sources", {}).items()):
        found += _source(name, source)
    sources = shaping.get("sources", {}).values()
    scopes = [*shaping.get("scopes", ()), *(scope for source in sources for scope in source.get("back_off", ()))]
    for scope in {scope["scope"]: scope for scope in scopes}.values():
        found += _scope(scope, now)
    return found


def _source(name: str, source: dict[str, Any]) -> list[str]:
    rate = next((limit["value"] for limit in source["limits"] if limit["quantity"] == "message_rate"), "no limit")
    window = f"/{source['window']:g}" if source.get("window") else ""
    head = f"{output.clean(name)}: {source['per_second']:.3g}/s of {rate}, in hand {source['in_flight']}{window}, "
    found = [_label("source") + head + f"standing {source['standing']} ({source['score']:.0f})"]
    for limit in source["limits"]:
        found.append(_label("") + f"[dim]{limit['quantity']} {limit['value']}: {output.clean(limit['limit'])}, "
                     f"{output.clean(limit['where'])}[/]")  # fmt: skip
    if warm := source.get("warm_up"):
        why = f"; {output.clean(warm['why'])}" if warm.get("why") else ""
        found.append(
            _label("") + f"warms up by {output.clean(warm['plan'])}, stage {warm['stage']}, {warm['cap']} a day{why}"
        )
    return found


def _scope(scope: dict[str, Any], now: float) -> list[str]:
    until = f" until {output.moment(scope['until'], now)}" if scope["until"] > now else ""
    rate = f", {scope['per_second']:.3g}/s" if scope["per_second"] else ""
    factor = f" to {scope['factor']:.0%}" if scope["what"] == "slowed" else ""
    by = f"rule {scope['rule']}: {scope['reply']}" if scope["rule"] else ""
    return [
        _label(scope["what"], "yellow") + f"{output.clean(scope['scope'])}{factor}{rate}{until}",
        *([_label("") + f"[dim]{output.clean(by)}[/]"] if by else []),
    ]


def _replies(replies: dict[str, Any]) -> list[str]:
    found = []
    for group, reply in sorted(replies.items()):
        said = " ".join(str(part) for part in (reply["code"], reply["enhanced"], reply["text"]) if part)
        to = f"{reply['source']} at {reply['phase'] or '-'}" + (f", {reply['mx']}" if reply["mx"] else "")
        name = "no reply" if group == "none" else group
        found.append(
            _label(f"last {name}") + f"{output.clock(reply['at'])} {output.clean(said)} [dim]({output.clean(to)})[/]"
        )
    return found
