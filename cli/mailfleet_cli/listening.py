"""Where ingest listens, from its settings: for the checks before a start, for the banner, and for `mailfleet send`."""

from __future__ import annotations

from mailfleet_cli import output
from mailfleet_cli.plan import OWN_ADDRESS, Listener
from mailfleet_core.settings import SettingsFile
from mailfleet_ingest.settings import IngestSettings, ListenerSettings

WORDS = {
    "submission": "submission (STARTTLS, then a credential)",
    "implicit_tls": "submission (TLS at once, then a credential)",
    "trusted": "trusted networks (no credential)",
}


def ingest_listeners(file: SettingsFile) -> tuple[Listener, ...]:
    """All of ingest's addresses."""
    listeners = file.section("ingest", IngestSettings).listeners
    return tuple(
        Listener(
            WORDS.get(listener.kind, listener.kind),
            listener.address,
            listener.port,
            f"[[ingest.listeners]] number {number}: port",
        )
        for number, listener in enumerate(listeners, 1)
    )


def reachable(listener: ListenerSettings | Listener) -> str:
    """`address:port` for a client on this machine."""
    address = OWN_ADDRESS.get(listener.address, listener.address)
    return f"[{address}]:{listener.port}" if ":" in address and address[0] != "[" else f"{address}:{listener.port}"


def entrance(file: SettingsFile, with_login: bool) -> str:
    """Where `mailfleet send` goes: the first listener that takes mail with (or without) a credential."""
    wanted = "submission" if with_login else "trusted"
    for listener in file.section("ingest", IngestSettings).listeners:
        if listener.kind == wanted and not listener.proxy_protocol:
            return reachable(listener)
    output.fail(
        f"the settings have no {wanted} listener; "
        + ("" if with_login else "give --user and a password in MAILFLEET_PASSWORD, or ")
        + "name one: --server HOST:PORT"
    )
