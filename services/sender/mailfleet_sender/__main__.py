"""`python -m mailfleet_sender`: wiring only."""

from __future__ import annotations

from mailfleet_core.dns.resolver import DnspythonResolver
from mailfleet_core.service import Context, main
from mailfleet_core.settings import DnsSettings, egress
from mailfleet_sender.settings import SenderSettings, check, check_sources
from mailfleet_sender.shell.service import Sender


def build(context: Context) -> Sender:
    """The sender as this process runs it. Raises SettingsError."""
    settings = context.settings.section("sender", SenderSettings)
    check(settings)
    sources = egress(context.settings)
    check_sources(sources.sources)
    resolver = DnspythonResolver(context.settings.section("dns", DnsSettings), context.clock)
    return Sender(context.bus, context.clock, settings, sources, resolver, context.instance)


if __name__ == "__main__":
    main("sender", build)
