"""Which adapter the settings ask for."""

from __future__ import annotations

from mailfleet_core.bus.port import Bus
from mailfleet_core.settings import BusSettings, SettingsError

QUEUE_LIFE_SECONDS = 5 * 86_400


def open_bus(settings: BusSettings, client: str) -> Bus:
    """The bus of `settings`, not yet started; `client` names this process in the log's own logs. Raises SettingsError."""
    if settings.kind == "embedded":
        from mailfleet_core.bus.embedded import EmbeddedBus

        return EmbeddedBus(settings, client)
    if settings.kind == "kafka":
        from mailfleet_core.bus.kafka import KafkaBus

        return KafkaBus(settings, client)
    raise SettingsError(f"[bus] kind = {settings.kind!r}: it is `embedded` or `kafka`")
