"""`[run]`: everything on one machine, and what `mailfleet run` makes of the settings file before it starts services."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mailfleet_core.settings import Section

SINK_ROUTE = "sink"


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class RunSettings(Section, frozen=True):
    """`[run]`: what `mailfleet run` starts on this machine."""

    deliver: Annotated[
        bool, _doc("Deliver to the real MX hosts; false: all mail ends in the sink on this machine.")
    ] = False
    ingest_processes: Annotated[int, _doc("Processes that share the listeners; 0: follows the cores.")] = 0
    router_processes: Annotated[int, _doc("Processes that share the queue's partitions; 0: follows the cores.")] = 0
    sender_processes: Annotated[int, _doc("Processes that share the lanes; 0: follows the cores.")] = 0
    http_port: Annotated[int, _doc("First port of /healthz and /metrics, one for each process; 0: any free ones.")] = (
        2580
    )
    http_address: Annotated[
        str,
        _doc("Address of those pages; `0.0.0.0` or `::` for all, where others look at them (a kubelet, Prometheus)."),
    ] = "127.0.0.1"
    directory: Annotated[
        str,
        _doc(
            "Where the runner keeps its lock, the inbox and the settings it derives; empty: beside the settings file."
        ),
    ] = ""
    sink_listen: Annotated[str, _doc("Where the sink listens, `address:port`.")] = "127.0.0.1:2526"
    inbox: Annotated[str, _doc("Maildir of the sink; empty: `inbox` in `directory`.")] = ""


def directory_of(origin: str) -> Path:
    """The directory of the settings file, where a file that is not named is looked for."""
    return Path(origin).resolve().parent


def state_of(run: RunSettings, origin: str) -> Path:
    """Where the runner keeps its lock, its inbox and the settings it derived."""
    return Path(run.directory) if run.directory else directory_of(origin)


def inbox_of(run: RunSettings, origin: str) -> Path:
    """The sink's Maildir."""
    return Path(run.inbox) if run.inbox else state_of(run, origin) / "inbox"


def processes(run: RunSettings, cores: int) -> dict[str, int]:
    """How many processes of each service: one each up to two cores, then senders and ingests grow first."""
    return {
        "ingest": run.ingest_processes or max(1, cores // 3),
        "router": run.router_processes or max(1, cores // 4),
        "sender": run.sender_processes or max(1, cores // 3),
    }


def derive(
    raw: Mapping[str, Any], run: RunSettings, counts: Mapping[str, int], from_log: bool = False
) -> dict[str, Any]:
    """The settings that the services read: those of the file, a lane for each sender, and the sink before every route.

    Only what the file leaves open is filled in (no source where sources come `from_log`), except that `deliver = false` puts
    the sink before the file's own routes.
    """
    derived = dict(raw)
    if "source" not in derived and not from_log:
        derived["source"] = [{"name": "default", "lanes": counts["sender"]}]
    if not run.deliver:
        host, _, port = run.sink_listen.rpartition(":")
        sink = {
            "name": SINK_ROUTE,
            "domains": ["*"],
            "kind": "smart_host",
            "hosts": [host],
            "port": int(port),
            "tls": "off",
        }
        derived["route"] = [sink, *derived.get("route", ())]
    return derived


def toml_text(raw: Mapping[str, Any]) -> str:
    """`raw` (tables and arrays of tables, as in the settings file) as TOML."""
    lines: list[str] = []
    for name, content in raw.items():
        header, tables = (f"[{name}]", [content]) if isinstance(content, Mapping) else (f"[[{name}]]", content)
        for table in tables:
            lines += [header, *(f"{_value(key)} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # A JSON string, number or boolean is TOML too, if 127 is escaped.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")
