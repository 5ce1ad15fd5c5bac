"""The sections of the settings file and their types, from every service."""

from __future__ import annotations

import contextlib
import importlib

from mailfleet_cli.settings import RunSettings
from mailfleet_core import settings
from mailfleet_core.settings import Section
from mailfleet_egress.settings import EgressProxySettings
from mailfleet_ingest.settings import IngestSettings, ListenerSettings
from mailfleet_router.settings import RouterSettings
from mailfleet_sender.settings import SenderSettings

SECTION_TYPES: dict[str, type[Section]] = {
    "[bus]": settings.BusSettings,
    "[logs]": settings.LogSettings,
    "[dns]": settings.DnsSettings,
    "[ingest]": IngestSettings,
    "[[ingest.listeners]]": ListenerSettings,
    "[router]": RouterSettings,
    "[sender]": SenderSettings,
    "[egress]": settings.EgressSection,
    "[egress_proxy]": EgressProxySettings,
    "[run]": RunSettings,
    "[[source]]": settings.SourceSettings,
    "[[pool]]": settings.PoolSettings,
    "[[route]]": settings.RouteSettings,
    "[[stream]]": settings.StreamSettings,
}
"""Header in the file → type, in the order of `docs/settings.md`."""

# The operator is a program of its own with large libraries, and is not everywhere where the command is.
with contextlib.suppress(ModuleNotFoundError):
    SECTION_TYPES["[operator]"] = importlib.import_module("mailfleet_operator.settings").OperatorSettings
