"""KumoMTA's traffic shaping files (TOML) → a policy, and what has no equivalent.

The format is that of docs.kumomta.com, userguide/trafficshaping. There a value of a more special section replaces the same
value of a more general one (default, provider, provider and source, domain, domain and source); here the first case that
matches has all values. So each case gets what the sections below it would have left to it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

from mailfleet_router.decisions.shaping.imported import Imported, LeftOut, duration, rate, reply_match, unique
from mailfleet_router.decisions.shaping.responses import threshold
from mailfleet_router.decisions.shaping.values import PolicyError, rate_per_second

_TLS = "TLS is a setting of a [[route]]"
_TIME = "timeouts are settings of [sender]"
_WITHOUT = {
    "enable_tls": _TLS, "enable_mta_sts": _TLS, "enable_dane": _TLS, "remember_broken_tls": _TLS, "tls_prefer_openssl": _TLS,
    "idle_timeout": _TIME, "data_timeout": _TIME, "data_dot_timeout": _TIME, "connect_timeout": _TIME,
    "consecutive_connection_failures_before_delay": "a dead site is found by the back-off itself",
    "max_ready": "what is ready is bounded by `window`",
    "mx_rollup": "a case names what it is for; there is nothing to switch off",
    "source_selection_rate": "write a plan under `warmup`",
    "provider_source_selection_rate": "write a plan under `warmup`",
}  # fmt: skip

_LIMITS = {
    "connection_limit": "concurrency", "provider_connection_limit": "concurrency",
    "max_connection_rate": "connection_rate",
    "max_message_rate": "message_rate", "provider_max_message_rate": "message_rate",
    "max_deliveries_per_connection": "messages_per_connection",
}  # fmt: skip

_ACTIONS = {
    "Suspend": ("pause", "source_site"), "SuspendTenant": ("pause", "tenant_site"),
    "Bounce": ("bounce", "source_site"), "BounceTenant": ("bounce", "tenant_site"),
}  # fmt: skip

_FIXED = {"max_message_rate": "rate", "connection_limit": "concurrency"}
"""What `SetConfig` sets for a time, and the key of `to` that does."""

_STRUCTURE = ("sources", "automation", "match", "replace_base")


class _Section(NamedTuple):
    """A table of the file: of a provider, a domain or everything, perhaps for one source."""

    name: str
    kind: str
    """`default`, `provider` or `domain`."""
    values: dict[str, Any]
    source: str = ""


def from_kumomta(files: tuple[tuple[str, str], ...]) -> Imported:
    """The policy in the texts of shaping files, given as (name, text) in the order in which KumoMTA reads them.

    Raises PolicyError for what is not TOML.
    """
    reader = _Reader()
    for origin, text in files:
        reader.read(origin, text)
    policy, order = reader.policy(), [origin for origin, _ in files]
    return Imported(policy, tuple(sorted(reader.left_out, key=lambda left: (order.index(left.origin), left.line))))


def equivalents() -> Iterator[tuple[str, str]]:
    """Keys and actions of their files, and what becomes of each here: for people."""
    yield from ((key, f"`{ours}`") for key, ours in _LIMITS.items())
    yield from ((f'action = "{action}"', f"effect `{effect}`, scope `{scope}`")
                for action, (effect, scope) in _ACTIONS.items())  # fmt: skip
    yield from (
        (f"action = SetConfig {key}", f"effect `slow` with `to: {{{ours}: …}}`") for key, ours in _FIXED.items()
    )
    yield from ((key, f"not taken over: {why}") for key, why in _WITHOUT.items())


class _Reader:
    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        """By kind and name."""
        self.left_out: list[LeftOut] = []
        self._lines: dict[tuple[str, str], tuple[str, int]] = {}
        """By header and key of the file: origin and line."""

    def read(self, origin: str, text: str) -> None:
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{origin}: not TOML: {error}") from error
        self._lines |= {key: (origin, line) for key, line in _lines(text)}
        for name, table in data.items():
            if name == "provider":
                for provider, inner in table.items():
                    self._merge("provider", provider, inner)
            else:
                self._merge("default" if name == "default" else "domain", name, table)

    def _merge(self, kind: str, name: str, table: dict[str, Any]) -> None:
        known = self.tables.setdefault((kind, name), {})
        if table.get("replace_base"):
            known.clear()
        automation = [*known.get("automation", ()), *table.get("automation", ())]
        sources = {**known.get("sources", {}), **table.get("sources", {})}
        known.update(table)
        known.update({"automation": automation, "sources": sources})

    def policy(self) -> dict[str, Any]:
        """All that was read."""
        providers = [self._provider(name, table) for (kind, name), table in self.tables.items() if kind == "provider"]
        cases = [case for section in self._sections() if len(case := self._case(section)) > ("if" in case)]
        rules: list[dict[str, Any]] = []
        for (kind, name), table in sorted(self.tables.items(), key=lambda item: item[0][0] == "default"):
            for automation in table["automation"]:
                rules += self._rules(kind, name, automation, [rule["name"] for rule in rules])
        found = {
            "version": 1,
            "providers": [provider for provider in providers if provider],
            "limits": [{"name": "receivers", "per": ["source", "site"], "cases": cases}] if cases else [],
            "rules": rules,
        }
        return {key: value for key, value in found.items() if value}

    def _sections(self) -> Iterator[_Section]:
        """From the most special to the most general, each with the values that KumoMTA would use."""
        base = self.tables.get(("default", "default"), {})
        for kind in ("domain", "provider", "default"):
            for (of, name), table in self.tables.items():
                if of == kind:
                    own = {**base, **table}
                    for source, special in table["sources"].items():
                        self._report(kind, name, special, source)
                        yield _Section(name, kind, {**own, **special}, source)
                    self._report(kind, name, table)
                    yield _Section(name, kind, own)

    def _case(self, section: _Section) -> dict[str, Any]:
        match = {} if section.kind == "default" else {section.kind: [section.name]}
        match |= {"source": [section.source]} if section.source else {}
        case: dict[str, Any] = {"if": match} if match else {}
        for key, name in _LIMITS.items():
            if (value := section.values.get(key)) is not None:
                case |= _limit(name, value, case)
        return case

    def _report(self, kind: str, name: str, table: dict[str, Any], source: str = "") -> None:
        header = _header(kind, name) + (f".sources.{source}" if source else "")
        for key, value in table.items():
            if key in _STRUCTURE:
                continue
            if key not in _LIMITS:
                self._leave(header, key, value, _WITHOUT.get(key, "it is not about how much at a time"))
            elif not _limit(_LIMITS[key], value, {}):
                self._leave(header, key, value, "its value was not understood")
            elif "local:" in str(value):
                self._leave(header, key, value, "there it holds for one machine, here for the whole fleet")
        if kind == "domain" and not source and table.get("mx_rollup", True):
            why = "there it holds for all domains with the same MX hosts, here for this one; a provider with `mx` holds for all"
            self._leave(header, "", "", why)

    def _leave(self, header: str, key: str, value: object, why: str) -> None:
        origin, line = self._where(header, key)
        self.left_out.append(LeftOut(origin, line, f"[{header}] {key} = {value!r}" if key else f"[{header}]", why))

    def _where(self, header: str, key: str) -> tuple[str, int]:
        """Origin and line of a key, or else of its table, or else of the first table in that one."""
        inner = next((place for (inner, _), place in self._lines.items() if inner.startswith(f"{header}.")), ("", 0))
        return self._lines.get((header, key)) or self._lines.get((header, "")) or inner

    def _provider(self, name: str, table: dict[str, Any]) -> dict[str, Any]:
        mx: list[str] = []
        domains: list[str] = []
        for match in table.get("match", ()):
            for kind, pattern in match.items():
                target = domains if kind == "DomainSuffix" else mx
                target += [pattern.rstrip(".")] if kind == "HostName" else _suffix(pattern.rstrip("."))
        if not mx and not domains:
            self._leave(f"provider.{name}", "", "", "it has no `match` in any file, so nothing could ever be it")
        return {"name": name, "mx": mx} | ({"domains": domains} if domains else {})

    def _rules(self, kind: str, name: str, automation: dict[str, Any], taken: list[str]) -> list[dict[str, Any]]:
        header = f"{_header(kind, name)}.automation"
        expressions = automation.get("regex", [])
        actions = automation.get("action", [])
        times = self._times(header, automation)
        rules: list[dict[str, Any]] = []
        listed = actions if isinstance(actions, list) else [actions]
        to = {key: value for action in listed for key, value in _fixed(action).items()} if "ttl" in times else {}
        for action in listed:
            effect = self._effect(header, action, to)
            if not effect or any(rule["effect"] == effect[0] and rule["scope"] == effect[1] for rule in rules):
                continue
            for expression in expressions if isinstance(expressions, list) else [expressions]:
                try:
                    matched = reply_match(expression)
                except PolicyError as error:
                    self._leave(header, "regex", expression, str(error))
                    continue
                title = unique(f"{name}-{effect[0]}", [*taken, *(rule["name"] for rule in rules)])
                match = {} if kind == "default" else {"if": {kind: [name]}}
                fixed = {"to": to} if to and effect[0] == "slow" else {}
                rules.append(
                    {"name": title, **match, **matched, "effect": effect[0], "scope": effect[1]} | times | fixed
                )
        return rules

    def _times(self, header: str, automation: dict[str, Any]) -> dict[str, Any]:
        """Threshold and ttl, as far as there are any that can be said here."""
        found = {"ttl": duration(str(automation.get("duration", "")))}
        trigger = automation.get("trigger")
        if isinstance(trigger, dict) and "Threshold" in trigger:
            window = re.sub(r"/(?=[smhd])", "/1", rate(str(trigger["Threshold"])) or str(trigger["Threshold"]))
            try:
                threshold(window)
                found = {"threshold": window, **found}
            except PolicyError as error:
                self._leave(header, "trigger", trigger, str(error))
        return {key: text for key, text in found.items() if text}

    def _effect(self, header: str, action: object, to: dict[str, Any]) -> tuple[str, str] | None:
        if isinstance(action, str) and action in _ACTIONS:
            return _ACTIONS[action]
        config = action.get("SetConfig", {}) if isinstance(action, dict) else {}
        if _fixed(action) and to:
            return "slow", "source_site"
        if config.get("name") in _LIMITS:
            why = f"there it sets {config.get('value')!r} for a time; here `slow` halves, and rises again step by step"
            self._leave(header, "action", action, why)
            return "slow", "source_site"
        self._leave(header, "action", action, "no effect of ours does this")
        return None


def _fixed(action: object) -> dict[str, Any]:
    """What a `SetConfig` becomes in `to`; empty: nothing."""
    config = action.get("SetConfig", {}) if isinstance(action, dict) else {}
    key = _FIXED.get(config.get("name", ""))
    found = _limit(_LIMITS[config["name"]], config.get("value"), {}) if key else {}
    return {key: found[_LIMITS[config["name"]]]} if key and found else {}


def _limit(name: str, value: object, case: dict[str, Any]) -> dict[str, Any]:
    """The value as ours, where `case` has no smaller one already."""
    if isinstance(value, bool):
        return {}
    if isinstance(value, int) and name in ("concurrency", "messages_per_connection"):
        return {name: min(value, case.get(name, value))}
    text, *options = str(value).removeprefix("local:").split(",max_burst=")
    found = rate(text)
    if name == "concurrency" and text.isdigit():
        return {name: min(int(text), case.get(name, int(text)))}
    if not found or name not in ("connection_rate", "message_rate"):
        return {}
    if name in case and rate_per_second(case[name]) <= rate_per_second(found):
        return {}
    burst = {"burst": int(options[0])} if options and options[0].isdigit() and name == "message_rate" else {}
    return {name: found, **burst}


def _suffix(pattern: str) -> list[str]:
    """A suffix of names → our patterns: `.x` is everything below x, `x` is x as well."""
    return [f"*{pattern}"] if pattern.startswith(".") else [pattern, f"*.{pattern}"]


def _header(kind: str, name: str) -> str:
    return f"provider.{name}" if kind == "provider" else name


_TABLE = re.compile(r"\s*\[+\s*(.+?)\s*\]+\s*(?:#.*)?\Z")
_KEY = re.compile(r"\s*([A-Za-z_]+)\s*=")


def _lines(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Where the tables and their keys are; `tomllib` does not tell. Of several tables of one name the last."""
    header = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("[") and (found := _TABLE.match(line)):
            header = found[1].replace('"', "").replace("'", "")
            yield (header, ""), number
        elif found := _KEY.match(line):
            yield (header, found[1]), number
