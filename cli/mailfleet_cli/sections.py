"""The sections of the settings file and their types, from every service."""

from __future__ import annotations

import msgspec

from mailfleet_cli.settings import RunSettings
from mailfleet_core import settings

SECTION_TYPES: dict[str, type[msgspec.Struct]] = {
    "[bus]": settings.BusSettings,
    "[logs]": settings.LogSettings,
    "[dns]": settings.DnsSettings,
    "[run]": RunSettings,
    "[[source]]": settings.SourceSettings,
    "[[pool]]": settings.PoolSettings,
    "[[route]]": settings.RouteSettings,
    "[[stream]]": settings.StreamSettings,
}
"""Header in the file → type, in the order of `docs/settings.md`."""
