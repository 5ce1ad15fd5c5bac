"""PowerMTA configuration → a policy, and what has no equivalent.

Read: `<domain>`, `<virtual-mta>` (with `<domain>` in it), `<virtual-mta-pool>`, `<smtp-pattern-list>`, `<source>` and
`domain-macro`. What a domain does not say is taken from `<domain *>`, as PowerMTA does; a queue is a domain and a virtual MTA,
which here is a counter per source and site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mailfleet_router.decisions.shaping.imported import Imported, LeftOut, duration, rate, reply_match, unique
from mailfleet_router.decisions.shaping.values import PolicyError

_ADDRESS = "addresses and EHLO names belong to a [[source]] of the settings"
_BACKOFF = "back-off halves the rate, probes and rises by itself; there is no second set of limits"
_WITHOUT = {
    "smtp-source-host": _ADDRESS, "host-name": _ADDRESS, "use-starttls": "TLS is a setting of a [[route]]",
    "require-starttls": "TLS is a setting of a [[route]]", "dkim-sign": "signing belongs to the sender",
    "max-cold-virtual-mta-msg": "write a plan under `warmup`",
    "max-rcpt-per-transaction": "`recipients_per_unit` of [router]",
    "smtp-out-rampup-interval": "the back-off rises by itself", "backoff-to-normal-after-delivery": _BACKOFF,
    "backoff-upon-all-sources-disabled": _BACKOFF, "backoff-reroute-to-virtual-mta": "an own source never takes refused mail",
}  # fmt: skip
_LADDER = ("retry-after", "bounce-after", "notify-of-delay-every")
_LINK = re.compile(r"<(/?)\s*([a-z-]+)\s*([^>]*)>\s*\Z", re.IGNORECASE)
_REPLY = re.compile(r"reply\s+/((?:[^/\\]|\\.)*)/[a-z]*\s*(.*)\Z", re.IGNORECASE)


class _Line(NamedTuple):
    number: int
    block: tuple[tuple[str, str], ...]
    """The blocks around it, from the outermost: kind and name."""
    directive: str
    value: str


class _Attached(NamedTuple):
    """What a domain's block says about replies to it."""

    patterns: tuple[str, ...]
    ttl: str
    """How long back-off lasts."""


def from_powermta(origin: str, text: str) -> Imported:
    """The policy in the text of a configuration file."""
    reader = _Reader(origin)
    for line in _parsed(text):
        reader.read(line)
    return Imported(reader.policy(), tuple(sorted(reader.left_out, key=lambda left: left.line)))


def equivalents() -> Iterator[tuple[str, str]]:
    """Directives, and what becomes of each here: for people."""
    yield from ((directive, f"`{ours}`") for directive, (ours, _) in _LIMITS.items())
    yield from ((directive, f"not taken over: {why}") for directive, why in _WITHOUT.items())


def _parsed(text: str) -> Iterator[_Line]:
    blocks: list[tuple[str, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if tag := _LINK.match(line):
            if tag[1]:
                del blocks[-1:]
            else:
                blocks.append((tag[2].lower(), tag[3].strip()))
            continue
        directive, _, value = line.partition(" ")
        plain = value if directive.lower() == "reply" else value.partition(" #")[0]
        yield _Line(number, tuple(blocks), directive.lower(), plain.strip())


class _Reader:
    def __init__(self, origin: str) -> None:
        self.left_out: list[LeftOut] = []
        self._origin = origin
        self._macros: dict[str, list[str]] = {}
        self._domains: dict[tuple[str, str], dict[str, _Line]] = {}
        """By virtual MTA (empty: all) and domain: directive → line."""
        self._pools: dict[str, list[str]] = {}
        self._replies: dict[str, list[_Line]] = {}

    def read(self, line: _Line) -> None:
        """Put a line where it belongs."""
        kind, name = line.block[-1] if line.block else ("", "")
        readers: dict[str, Callable[[_Line, str], None]] = {
            "": self._top, "domain": self._domain, "virtual-mta": self._other, "virtual-mta-pool": self._pool,
            "smtp-pattern-list": self._pattern,
        }  # fmt: skip
        readers.get(kind, self._other)(line, name)

    def _top(self, line: _Line, _: str) -> None:
        name, _, members = line.value.partition(" ")
        if line.directive == "domain-macro":
            self._macros[name.lower()] = [part.strip().lower() for part in members.split(",") if part.strip()]
        else:
            self._other(line, "")

    def _domain(self, line: _Line, name: str) -> None:
        outer = next((block[1] for block in line.block[:-1] if block[0] == "virtual-mta"), "")
        # PowerMTA takes the first of several values.
        self._domains.setdefault((outer, name.lower()), {}).setdefault(line.directive, line)

    def _pool(self, line: _Line, name: str) -> None:
        if line.directive == "virtual-mta":
            self._pools.setdefault(name, []).append(line.value)
        else:
            self._other(line, name)

    def _pattern(self, line: _Line, name: str) -> None:
        if line.directive == "reply":
            self._replies.setdefault(name, []).append(line)
        else:
            self._other(line, name)

    def _other(self, line: _Line, _: str) -> None:
        self._leave(line, _WITHOUT.get(line.directive, "it is not about how much at a time"))

    def _leave(self, line: _Line, why: str) -> None:
        self.left_out.append(LeftOut(self._origin, line.number, f"{line.directive} {line.value}".strip(), why))

    def policy(self) -> dict[str, Any]:
        """All that was read."""
        for (_, domain), own in self._domains.items():
            self._report(domain, own)
        queues = {lines["queue-to"].value.lower() for lines in self._domains.values() if "queue-to" in lines}
        ordered = sorted(self._domains, key=lambda key: (_width(key[1]), not key[0]))
        cases = [case for key in ordered if key[1] not in queues and (case := self._case(*key))]
        found = {
            "version": 1,
            "limits": [{"name": "receivers", "per": ["source", "site"], "cases": cases}] if cases else [],
            "rules": self._rules(),
            "ladders": self._ladders(),
            "pools": [
                {"name": name, "sources": [{"source": source} for source in sources]}
                for name, sources in self._pools.items()
            ],
        }
        return {key: value for key, value in found.items() if value}

    def _case(self, virtual_mta: str, domain: str) -> dict[str, Any]:
        levels = [_limits(lines) for lines in self._levels(virtual_mta, domain)]
        if domain != "*" and not any(levels[2:]):
            return {}
        values = {name: value for level in levels for name, value in level.items()}
        limited = {name: value for name, value in values.items() if value is not None}
        match = ({} if domain == "*" else {"domain": self._expanded(domain)}) | (
            {"source": [virtual_mta]} if virtual_mta else {}
        )
        return (({"if": match} if match else {}) | limited) if limited else {}

    def _levels(self, virtual_mta: str, domain: str) -> Iterator[dict[str, _Line]]:
        """From the most general to the most special: everything, the queue it is sent to, the domain, that of the VMTA."""
        own = self._domains[virtual_mta, domain]
        queue = own["queue-to"].value.lower() if "queue-to" in own else ""
        for key in (("", "*"), (virtual_mta, "*"), ("", queue), ("", domain), (virtual_mta, domain)):
            yield self._domains.get(key, {})

    def _names(self, domain: str) -> list[str]:
        queued = [
            name
            for (_, name), lines in self._domains.items()
            if "queue-to" in lines and lines["queue-to"].value.lower() == domain
        ]
        return [pattern for name in dict.fromkeys([domain, *queued]) for pattern in self._expanded(name)]

    def _expanded(self, domain: str) -> list[str]:
        if domain.startswith("$"):
            return self._macros.get(domain[1:], [])
        return [domain[4:], f"*.{domain[4:]}"] if domain.startswith("[*.]") else [domain]

    def _report(self, domain: str, own: dict[str, _Line]) -> None:
        for directive, line in own.items():
            if directive in _LIMITS:
                if _LIMITS[directive][1](line.value) is None and line.value.lower() not in ("unlimited", "0"):
                    self._leave(line, "its value was not understood")
            elif directive in _LADDER:
                if domain != "*":
                    self._leave(line, "retry times belong to a stream, not to a receiver")
            elif directive == "smtp-pattern-list":
                if line.value not in self._replies:
                    self._leave(line, "there is no such pattern list")
            elif directive.startswith("backoff-") and directive != "backoff-to-normal-after":
                self._leave(line, _WITHOUT.get(directive, _BACKOFF))
            elif directive not in ("queue-to", "backoff-to-normal-after"):
                self._leave(line, _WITHOUT.get(directive, "it is not about how much at a time"))
        if domain.startswith("$") and not self._expanded(domain) and own:
            self._leave(next(iter(own.values())), f"there is no domain-macro {domain[1:]}")

    def _ladders(self) -> list[dict[str, Any]]:
        base = self._domains.get(("", "*"), {})
        waits = base.get("retry-after")
        if waits is None:
            return []
        times = {"expire": base.get("bounce-after"), "delay_dsn": base.get("notify-of-delay-every")}
        found = {key: duration(line.value) for key, line in times.items() if line}
        self._leave(waits, "it is put on the stream `bulk`; write ladders for the others")
        retry = [time for wait in waits.value.split(",") if (time := duration(wait))]
        return [{"stream": "bulk", "retry": retry} | {key: time for key, time in found.items() if time}]

    def _rules(self) -> list[dict[str, Any]]:
        rules: list[dict[str, Any]] = []
        for name, replies in self._replies.items():
            attached = self._attached(name)
            if not attached.patterns:
                self._leave(replies[0], f"no domain has the pattern list {name}")
                continue
            match = {} if "*" in attached.patterns else {"if": {"domain": list(attached.patterns)}}
            for line in replies:
                if effect := self._reply(line, attached.ttl):
                    title = unique(f"{name}-{effect['effect']}", (rule["name"] for rule in rules))
                    rules.append({"name": title, **match, **effect})
        return sorted(rules, key=lambda rule: "if" not in rule)

    def _attached(self, name: str) -> _Attached:
        domains = [
            (domain, lines)
            for (_, domain), lines in self._domains.items()
            if "smtp-pattern-list" in lines and lines["smtp-pattern-list"].value == name
        ]
        patterns = [pattern for domain, _ in domains for pattern in self._names(domain)]
        times = [lines["backoff-to-normal-after"].value for _, lines in domains if "backoff-to-normal-after" in lines]
        return _Attached(tuple(dict.fromkeys(patterns)), (duration(times[0]) or "") if times else "")

    def _reply(self, line: _Line, ttl: str) -> dict[str, Any] | None:
        found = _REPLY.match(f"reply {line.value}")
        if not found:
            self._leave(line, "it was not understood")
            return None
        options = dict(part.partition("=")[::2] for part in found[2].split())
        effect = _effect(options, ttl)
        if effect is None:
            self._leave(line, "no effect of ours does this")
            return None
        try:
            return reply_match(found[1].replace(r"\/", "/")) | effect
        except PolicyError as error:
            self._leave(line, str(error))
            return None


def _effect(options: dict[str, str], ttl: str) -> dict[str, Any] | None:
    if options.get("mode") == "backoff":
        lasts = duration(options.get("backoff-to-normal-after", "")) or ttl
        return {"effect": "slow", "scope": "source_site"} | ({"ttl": lasts} if lasts else {})
    if "disable-source-ip" in options:
        lasts = duration(options.get("reenable-after", "")) or ""
        return {"effect": "disable_source", "scope": "source"} | ({"ttl": lasts} if lasts else {})
    if "bounce-queue" in options:
        return {"effect": "bounce", "scope": "source_site"}
    return None


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() and int(text) else None


_LIMITS: dict[str, tuple[str, Callable[[str], str | int | None]]] = {
    "max-smtp-out": ("concurrency", _count),
    "max-msg-rate": ("message_rate", rate),
    "max-connect-rate": ("connection_rate", rate),
    "max-msg-per-connection": ("messages_per_connection", _count),
}


def _limits(lines: dict[str, _Line]) -> dict[str, str | int | None]:
    """Values of ours; None where a line says that there is no limit."""
    return {name: parse(lines[key].value) for key, (name, parse) in _LIMITS.items() if key in lines}


def _width(domain: str) -> int:
    """Names first, then patterns, then everything."""
    return 2 if domain == "*" else 1 if "*" in domain else 0
