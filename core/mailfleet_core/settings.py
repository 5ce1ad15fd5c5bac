"""Settings: one TOML file, a section for each service; unknown keys stop the start with the nearest right one.

A field's docstring-like sentence lives in `msgspec.Meta(description=…)`, so that `docs/settings.md` is generated and
never kept by hand. Every value may be overridden by an environment variable `MAILFLEET_<SECTION>__<KEY>`; items of a list
are separated by commas there.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from mailfleet_core.model.sources import Table
from mailfleet_core.model.wire import Source

SECTIONS = (
    "bus",
    "logs",
    "dns",
    "ingest",
    "router",
    "sender",
    "operator",
    "egress",
    "egress_proxy",
    "run",
    "source",
    "pool",
    "route",
    "stream",
)
"""Top-level names of the file; the last four are arrays of tables."""


class SettingsError(Exception):
    """The settings cannot be used; the text says where and what to write instead."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the file: frozen, typed, closed."""


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class BusSettings(Section, frozen=True):
    """`[bus]`: the log that the services meet in."""

    kind: Annotated[str, _doc("`embedded` (files on this machine, no server) or `kafka`.")] = "embedded"
    directory: Annotated[str, _doc("embedded: where the log lies.")] = "var/log"
    bootstrap: Annotated[str, _doc("kafka: `host:port`, several separated by commas.")] = "127.0.0.1:9092"
    security: Annotated[str, _doc("kafka: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")] = "PLAINTEXT"
    sasl_mechanism: Annotated[str, _doc("kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")] = "SCRAM-SHA-512"
    username: Annotated[str, _doc("kafka: SASL user.")] = ""
    password_file: Annotated[str, _doc("kafka: file with the SASL password.")] = ""
    ca_file: Annotated[str, _doc("kafka: CA certificates; empty: the system's.")] = ""
    topic_prefix: Annotated[str, _doc("Put before every topic name, to keep installations on one cluster apart.")] = ""
    replication: Annotated[
        int, _doc("kafka: replicas of the topics we create; 0: 3, or the number of brokers if less.")
    ] = 0
    queue_partitions: Annotated[int, _doc("Partitions of the queue; fixed for life. 64 for a cluster.")] = 4
    lanes: Annotated[int, _doc("Partitions of `mail.dispatch`: at least the lanes of all sources together.")] = 16
    unsafe_durability: Annotated[bool, _doc("Start although the topics may lose acknowledged mail.")] = False
    max_in_flight_bytes: Annotated[
        int, _doc("Bytes a process may have unacknowledged before it slows its clients.")
    ] = 64 << 20


class LogSettings(Section, frozen=True):
    """`[logs]`: what the services print."""

    format: Annotated[str, _doc("`json`, `console`, or `auto` (console on a terminal).")] = "auto"
    level: Annotated[str, _doc("debug, info, warning or error.")] = "info"


class DnsSettings(Section, frozen=True):
    """`[dns]`: whom router and senders ask."""

    nameservers: Annotated[tuple[str, ...], _doc("`address` or `address:port`; empty: the system's.")] = ()
    timeout_seconds: Annotated[float, _doc("Per question, over all nameservers.")] = 10.0
    max_ttl_seconds: Annotated[float, _doc("Answers are kept at most this long.")] = 3600.0


class EgressSection(Section, frozen=True):
    """`[egress]`: who says which sources and pools there are."""

    sources: Annotated[
        Literal["settings", "control"],
        _doc(
            "`settings`: `[[source]]` and `[[pool]]` of this file. `control`: the log, where `mailfleet source` or an "
            "operator of a cluster writes them; changes are obeyed at once."
        ),
    ] = "settings"


class SourceSettings(Section, frozen=True):
    """`[[source]]`: one egress source."""

    name: Annotated[str, _doc("Its name in events, metrics and pools.")]
    address: Annotated[str, _doc("IPv4 address to send from; empty: the system chooses.")] = ""
    address6: Annotated[str, _doc("IPv6 address to send from; empty: the system chooses.")] = ""
    ehlo_name: Annotated[str, _doc("Name in EHLO: the PTR of the address. Empty: this machine's name.")] = ""
    lanes: Annotated[int, _doc("Lanes of dispatch; each gets 1/lanes of the source's limits.")] = 1
    proxy: Annotated[
        str,
        _doc("The egress proxy that has the address: `socks5://user@host:port`, with TLS `socks5s://…`; empty: none."),
    ] = ""


class PoolMember(Section, frozen=True):
    """A source in a pool."""

    source: str
    weight: int = 1


class PoolSettings(Section, frozen=True):
    """`[[pool]]`: weighted egress sources that a tenant may use."""

    name: Annotated[str, _doc("`default` is used by credentials that name none.")]
    sources: Annotated[tuple[PoolMember, ...], _doc("`{source = …, weight = …}` each.")]


class RouteSettings(Section, frozen=True):
    """`[[route]]`: next hop and limits for some recipient domains; the first match wins, the last resort is MX."""

    name: Annotated[str, _doc("Its name in `queues` and in secrets.")] = ""
    domains: Annotated[tuple[str, ...], _doc("Domains, `*.example.org` for all below one, `*` for all.")] = ("*",)
    kind: Annotated[str, _doc("`mx`, `smart_host` or `lmtp`.")] = "mx"
    hosts: Annotated[
        tuple[str, ...], _doc("smart_host, lmtp: names, addresses, or `unix:/path` for LMTP, in order.")
    ] = ()
    port: Annotated[int, _doc("TCP port of the next hop.")] = 25
    tls: Annotated[str, _doc("`opportunistic`, `required`, `verify` or `off`.")] = "opportunistic"
    username: Annotated[str, _doc("smart_host: AUTH user.")] = ""
    password_file: Annotated[str, _doc("smart_host: file with the AUTH password.")] = ""
    max_connections: Annotated[int, _doc("Connections at once from one source to one site.")] = 20
    connections_per_second: Annotated[float, _doc("New connections from one source to one site; 0: no limit.")] = 0.0
    messages_per_second: Annotated[float, _doc("Messages from one source to one site; 0: no limit.")] = 0.0
    messages_per_connection: Annotated[int, _doc("Then the connection is closed.")] = 100
    site_messages_per_second: Annotated[float, _doc("Messages to one site from all sources; 0: no limit.")] = 0.0
    site_window: Annotated[
        int, _doc("Units of one site in senders' hands at once; 0: 4 × max_connections a source, at least 100.")
    ] = 0


class StreamSettings(Section, frozen=True):
    """`[[stream]]`: a class of mail with its own retry ladder."""

    name: Annotated[str, _doc("`transactional`, `bulk` and `otp` exist; more may be added.")]
    retry_seconds: Annotated[tuple[float, ...], _doc("Waits between attempts; the last one repeats.")] = (
        300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0, 14400.0,
    )  # fmt: skip
    jitter: Annotated[float, _doc("Each wait is lengthened by up to this share.")] = 0.2
    expire_seconds: Annotated[float, _doc("Life in the queue (RFC 5321 4.5.4.1: at least 4 to 5 days).")] = 5 * 86400.0
    delay_dsn_seconds: Annotated[float, _doc("When the sender is told of a delay; 0: never.")] = 4 * 3600.0


T = TypeVar("T", bound=Section)


class SettingsFile:
    """The file, read once, and the environment over it."""

    def __init__(self, raw: Mapping[str, Any], origin: str, environment: Mapping[str, str]) -> None:
        self.raw = raw
        self.origin = origin
        self.environment = environment
        for name in raw:
            if name not in SECTIONS:
                raise SettingsError(f"{origin}: there is no section [{name}]{_nearest(name, SECTIONS)}")

    def section(self, name: str, kind: type[T]) -> T:
        """The table `[name]` as `kind`. Raises SettingsError."""
        values = dict(self.raw.get(name, {}))
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        known = list(types)
        prefix = f"MAILFLEET_{name.upper()}__"
        for variable, value in self.environment.items():
            if variable.startswith(prefix):
                key = variable.removeprefix(prefix).lower()
                values[key] = _listed(value) if _is_list(types.get(key)) else value
        return self._convert(values, kind, f"[{name}]", known)

    def tables(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """The array of tables `[[name]]` as values of `kind`. Raises SettingsError."""
        known = [field.name for field in msgspec.structs.fields(kind)]
        return tuple(
            self._convert(dict(table), kind, f"[[{name}]] number {number}", known)
            for number, table in enumerate(self.raw.get(name, ()), 1)
        )

    def _convert(self, values: dict[str, Any], kind: type[T], where: str, known: list[str]) -> T:
        for key in values:
            if key not in known:
                raise SettingsError(f"{self.origin}: {where} has no key {key!r}{_nearest(key, known)}")
        try:
            return msgspec.convert(values, kind, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{self.origin}: {where}: {error}") from error


def _is_list(kind: Any) -> bool:
    """Is this the type of a list of words or numbers?"""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_origin(bare) is tuple


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(known)})"


def load(path: str | Path | None, environment: Mapping[str, str] = os.environ) -> SettingsFile:
    """The settings in `path`; None: only defaults and the environment. Raises SettingsError."""
    if path is None:
        return SettingsFile({}, "defaults", environment)
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give another file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return SettingsFile(raw, str(path), environment)


DEFAULT_STREAMS = (
    StreamSettings(name="transactional", retry_seconds=(60.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0)),
    StreamSettings(name="bulk"),
    # One-time passwords: worth nothing after a quarter of an hour, so nobody is told of a delay either.
    StreamSettings(
        name="otp", retry_seconds=(5.0, 10.0, 20.0, 30.0, 60.0), expire_seconds=900.0, delay_dsn_seconds=0.0
    ),
)
DEFAULT_SOURCES = (SourceSettings(name="default"),)
DEFAULT_ROUTES = (RouteSettings(name="mx"),)


class EgressSettings(Section, frozen=True):
    """Sources, pools, routes and streams together: router and senders must read the same ones."""

    sources: tuple[SourceSettings, ...]
    pools: tuple[PoolSettings, ...]
    routes: tuple[RouteSettings, ...]
    streams: tuple[StreamSettings, ...]
    from_log: bool = False
    """Sources and pools come from the log; there are none here."""

    def lanes(self) -> dict[int, tuple[SourceSettings, int]]:
        """Lane number → (source, how many lanes share its limits), in the order of the file."""
        table: dict[int, tuple[SourceSettings, int]] = {}
        for source in self.sources:
            for _ in range(source.lanes):
                table[len(table)] = (source, source.lanes)
        return table

    def table(self, lanes: int) -> Table:
        """The sources as routers and senders fold them from the log, where `lanes` are the lanes there are."""
        numbers: dict[str, tuple[int, ...]] = {}
        for lane, (source, _) in self.lanes().items():
            numbers[source.name] = (*numbers.get(source.name, ()), lane)
        return Table(lanes, [_as_in_the_log(source, numbers.get(source.name, ())) for source in self.sources])


def _as_in_the_log(source: SourceSettings, lanes: tuple[int, ...]) -> Source:
    return Source(
        source.name, "", 1, source.address, source.address6, source.ehlo_name, lanes, source.proxy
    )  # fmt: skip


def egress(file: SettingsFile) -> EgressSettings:
    """Sources, pools, routes and streams of the file, with defaults. Raises SettingsError for a contradiction."""
    from_log = file.section("egress", EgressSection).sources == "control"
    sources, pools = _no_sources(file) if from_log else _sources(file)
    streams = {stream.name: stream for stream in (*DEFAULT_STREAMS, *file.tables("stream", StreamSettings))}
    routes = file.tables("route", RouteSettings)
    for route in routes:
        if route.kind not in ("mx", "smart_host", "lmtp"):
            raise SettingsError(f"{file.origin}: [[route]] {route.name!r}: kind is mx, smart_host or lmtp")
        if route.kind != "mx" and not route.hosts:
            raise SettingsError(f"{file.origin}: [[route]] {route.name!r}: a {route.kind} route needs hosts")
    return EgressSettings(
        sources=sources, pools=pools, routes=(*routes, *DEFAULT_ROUTES), streams=tuple(streams.values()),
        from_log=from_log,
    )  # fmt: skip


_Sources = tuple[tuple[SourceSettings, ...], tuple[PoolSettings, ...]]


def _sources(file: SettingsFile) -> _Sources:
    """Sources and pools of the file. Raises SettingsError for a contradiction."""
    sources = file.tables("source", SourceSettings) or DEFAULT_SOURCES
    everything = PoolSettings(name="default", sources=tuple(PoolMember(source=source.name) for source in sources))
    pools = file.tables("pool", PoolSettings)
    if not any(pool.name == "default" for pool in pools):
        pools = (*pools, everything)
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise SettingsError(f"{file.origin}: two [[source]] have the same name")
    for pool in pools:
        for member in pool.sources:
            if member.source not in names:
                raise SettingsError(f"{file.origin}: [[pool]] {pool.name!r} names no [[source]]: {member.source!r}"
                                    f"{_nearest(member.source, names)}")  # fmt: skip
    return sources, pools


def _no_sources(file: SettingsFile) -> _Sources:
    """None. Raises SettingsError where the file has some all the same."""
    for name in ("source", "pool"):
        if file.raw.get(name):
            raise SettingsError(f"{file.origin}: [egress] sources = \"control\", so there can be no [[{name}]] here; "
                                f"write them with: mailfleet source set NAME …")  # fmt: skip
    return (), ()
